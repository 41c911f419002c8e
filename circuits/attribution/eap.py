"""Edge attribution patching: gradients at the clean prompt (Syed, Rager, Conmy 2023, arXiv 2310.10348)."""

from circuits.attribute import Method

METHOD = Method(
    summary="edge attribution patching: one gradient, at the clean prompt",
    points=lambda steps: [(0.0, 1.0)],
    default_steps=1,
    takes_steps=False,
)
