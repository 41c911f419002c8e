"""A model that TransformerLens's bridge runs, with the face of our own: sites, taps, caches, text.

Hooks of the bridge stand on its modules, so that one run at a time passes through it, also of several threads.

Letters: b batch, p position, d d_model, v vocabulary.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lens import arguments
from lens.arguments import Span
from lens.bridge.block import BridgedBlock
from lens.bridge.sites import SWITCHES, Found, small_run
from lens.config import ModelConfig
from lens.hooks import joined
from lens.kv import KeyValues
from lens.model import Inputs, Transformer
from lens.sites import Site, Sites
from lens.taps import OFF, AnyTaps, Taps
from lens.unembed import LogitsAt, positions

STREAM_AFTER = "hook_resid_post"


class Reached(Exception):
    """A run has come to the layer where it stops."""

    def __init__(self, stream: Tensor) -> None:
        super().__init__()
        self.stream = stream


class Bridged(Transformer):
    """A `Transformer` that another program computes.

    It is read and edited as any: `run_with_cache`, `activations`, taps, hooks of a `with` block, gradients. There is
    no `past`, and no block of it can be run or looked into by itself; what needs that says so.

    Before a site is first edited or differentiated, a small run shows whether that has an effect; where it has
    none, the run is refused, with the site's name.
    """

    own = False

    def __init__(
        self, bridge: Any, cfg: ModelConfig, found: Found, *, tokenizer: Any, revision: str, origin: str
    ) -> None:
        nn.Module.__init__(self)
        self.cfg, self.tokenizer, self.revision, self.origin = cfg, tokenizer, revision, origin
        self.preprocessing = self.encoder = self.pooler = self.classifier = None
        self.boxes = self.vision = self.contrast = None
        self.bridge = bridge
        self.sites: dict[str, Site] = Sites(
            found.sites, f"{cfg.name}, which TransformerLens runs", found.refused
        )
        self.theirs = found.theirs
        self._text_sites = ()
        self._effective: set[str] = set()
        self._carried: set[str] = set()
        self._lock = threading.RLock()
        self.eval().requires_grad_(False)

    def forward(
        self,
        inputs: Inputs | Tensor,
        *,
        attention_mask: Tensor | None = None,
        taps: AnyTaps = OFF,
        start_at_layer: int = 0,
        stop_at_layer: int | None = None,
        past: KeyValues | None = None,
        logits_at: LogitsAt = None,
    ) -> Tensor:
        """As `Transformer.forward`, without `past`. A run that starts at a layer runs those below it too, on
        nothing, and sets the stream there.

        Raises:
            ValueError: as `Transformer.forward`; or an edit or a gradient at a site has no effect there.
        """
        if past is not None:
            raise ValueError(f"{self.name} is run by TransformerLens: no run of it can stand on a past")
        span = Span.of(self.cfg, inputs, start_at_layer, stop_at_layer)
        arguments.check_sites(self, taps.names, span)
        taps = joined(self, taps)
        given = arguments.inputs(self, inputs, attention_mask, span.start)
        stream = given.stream
        ids = (
            given.ids
            if stream is None
            else torch.zeros(stream.shape[:2], dtype=torch.long, device=self.device)
        )
        assert ids is not None
        arguments.check_length(self.cfg, ids.shape[1])
        arguments.check_logits_at(logits_at, len(ids), ids.shape[1], self.cfg.stack)
        self.check_effects([name for name in taps.names if name in self.sites and taps.alters(name)])
        mask = None if given.mask is None else given.mask.to(self.device)
        out = self._run(ids, mask, taps, span, stream)
        return positions(out, logits_at) if span.unembeds else out

    def _run(
        self, ids: Tensor, mask: Tensor | None, taps: AnyTaps, span: Span, stream: Tensor | None
    ) -> Tensor:
        """Logits, or the stream where the span stops."""
        hooks: list[tuple[str, Any]] = []
        if stream is not None:
            hooks.append((f"blocks.{span.start}.hook_resid_pre", lambda x, hook: stream))
        carried: dict[int, Tensor] = {}
        for name, site in self.sites.items():
            carries = name in self._carried and site.layer is not None and taps.alters(name)
            if carries and f"blocks.{site.layer}.{STREAM_AFTER}" in self.sites:
                hooks.append((self.theirs[name], self._carrying(name, taps, carried, site.layer)))
                after = self.theirs[f"blocks.{site.layer}.{STREAM_AFTER}"]
                hooks.append((after, lambda x, hook, layer=site.layer or 0: x + carried.pop(layer)))
            elif taps.wants(name) and span.fires(site):
                hooks.append((self.theirs[name], self._tapped(name, taps)))
        if not span.unembeds:
            last = span.stop == self.cfg.n_layers
            end = f"blocks.{span.stop - last}.hook_resid_{'post' if last else 'pre'}"

            def reached(x: Tensor, hook: Any) -> None:
                raise Reached(x)

            hooks.append((self.theirs[end], reached))
        options = {} if mask is None or bool(mask.all()) else {"attention_mask": mask.long()}
        switches = {
            SWITCHES[site.kind]
            for name, site in self.sites.items()
            if site.kind in SWITCHES and taps.wants(name)
        }
        with self._lock:
            try:
                for switch in switches:
                    getattr(self.bridge, switch)(True)
                with self.bridge.hooks(fwd_hooks=hooks):
                    return self.bridge(ids, **options)
            except Reached as at:
                return at.stream
            finally:
                for switch in switches:
                    getattr(self.bridge, switch)(False)

    def _tapped(self, name: str, taps: AnyTaps) -> Any:
        alters = taps.alters(name)

        def hook(x: Tensor, hook: Any) -> Tensor | None:
            y = taps(name, x)  # the bridge may show a view: what is differentiated must go on in its place
            return y if alters else None

        return hook

    def _carrying(self, name: str, taps: AnyTaps, carried: dict[int, Tensor], layer: int | None) -> Any:
        """A tap on what the MLP reads of the stream; the stream itself is moved along after the MLP."""
        assert layer is not None

        def hook(x: Tensor, hook: Any) -> Tensor:
            y = taps(name, x)
            carried[layer] = y - x
            return y

        return hook

    # ------------------------------------------------------------------ what the bridge does not do

    def check_effects(self, names: Sequence[str]) -> None:
        """Raise unless what stands in these activations' place reaches what comes out, in a small run.

        A zero that is differentiated is added at each site; where its gradient is nothing, the site is also given
        other values, and the logits must move.

        Raises:
            ValueError: with the site's name.
        """
        names = [name for name in self.sites if name in names and name not in self._effective]
        if not names:
            return
        for name in names:
            self._check_stream(name)
        ids, span = (
            small_run(self.cfg.d_vocab, self.device),
            Span.of(self.cfg, torch.zeros(1, 1).long(), 0, None),
        )
        added: dict[str, Tensor] = {}

        def with_zero(name: str) -> Any:
            def edit(x: Tensor) -> Tensor:
                added[name] = torch.zeros_like(x, requires_grad=True)
                return x + added[name]

            return edit

        with torch.enable_grad():
            out = self._run(ids, None, Taps(edits={name: with_zero(name) for name in names}), span, None)
            weights = torch.linspace(-1, 1, out.numel(), device=out.device).cos().view_as(out).to(out.dtype)
            zeros = [added[name] for name in names]
            if out.requires_grad:
                found = torch.autograd.grad((out * weights).sum(), zeros, allow_unused=True)
            else:
                found = tuple(None for _ in zeros)
        for name, gradient in zip(names, found, strict=True):
            if (gradient is None or not bool(gradient.any())) and not self._moves(
                name, ids, span, out.detach()
            ):
                raise ValueError(
                    f"edits at {name!r} have no effect in {self.name}, which TransformerLens runs: what is put in "
                    "the activation's place is not used"
                )
            self._effective.add(name)

    def _check_stream(self, name: str) -> None:
        """A stream that is edited must go on as edited: past the branch that reads it, too.

        The bridge may show what a branch reads of the stream, not the stream: what is put there is then carried
        over to the end of the block.

        Raises:
            ValueError: with the site's name.
        """
        layer, part = self.sites[name].layer, self.sites[name].kind
        branches = ["hook_mlp_out"] if part == "hook_resid_mid" else ["hook_attn_out", "hook_mlp_out"]
        seen = [f"blocks.{layer}.{site}" for site in (*branches, STREAM_AFTER)]
        if part not in ("hook_resid_pre", "hook_resid_mid") or not set(seen) <= self.sites.keys():
            return
        ids, span = (
            small_run(self.cfg.d_vocab, self.device),
            Span.of(self.cfg, torch.zeros(1, 1).long(), 0, None),
        )

        def left(edits: dict[str, Any]) -> Tensor:
            """The stream after the block without what its branches add."""
            taps = Taps(seen, edits)
            self._run(ids, None, taps, span, None)
            *added, end = (taps.seen[site] for site in seen)
            return end - sum(added[1:], added[0])

        def moved() -> bool:
            step = self.cfg.d_model**0.5
            change = left({name: lambda x: x + step}) - left({})
            return torch.allclose(change, torch.full_like(change, step), rtol=0, atol=0.01 * step)

        with torch.no_grad():
            if moved():
                return
            self._carried.add(name)
            if not moved():
                raise ValueError(
                    f"edits at {name!r} in {self.name}, which TransformerLens runs, do not move the stream"
                )

    def _moves(self, name: str, ids: Tensor, span: Span, before: Tensor) -> bool:
        """Do other values at a site change the logits?"""
        with torch.no_grad():
            after = self._run(ids, None, Taps(edits={name: lambda x: x.roll(1, -1) + 1}), span, None)
        return not torch.allclose(before, after, rtol=0, atol=1e-6 * float(before.abs().max()))

    def block(self, layer: int) -> Any:
        """The names of a block's sites; it has nothing else."""
        return BridgedBlock(self.name, layer)

    @property
    def blocks(self) -> Any:
        return [self.block(layer) for layer in range(self.cfg.n_layers)]

    def new_past(self) -> KeyValues:
        """Refused.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"{self.name} is run by TransformerLens: no run of it can stand on a past")

    def to_logits(self, x: Tensor, taps: AnyTaps = OFF, logits_at: LogitsAt = None) -> Tensor:
        """The last residual stream [b, p, d] to logits [b, p, v]: a run from after the last block on."""
        last = f"blocks.{self.cfg.n_layers - 1}.hook_resid_post"
        x = positions(x, logits_at)
        ids = torch.zeros(x.shape[:2], dtype=torch.long, device=self.device)
        with self._lock, self.bridge.hooks(fwd_hooks=[(self.theirs[last], lambda y, hook: x)]):
            return self.bridge(ids)
