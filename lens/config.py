"""What a model is, in one frozen value: every difference between families is a field here.

A family file turns a Hugging Face config into a `ModelConfig`; the components read nothing else.
There is no `if model_type == …` anywhere in the core: if a family seems to need one, a field is missing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from lens.front_ends import FeatureConfig, MelConfig, PatchConfig, ResNetConfig  # noqa: F401
from lens.plain import Open, from_plain, to_plain
from lens.position_schemes import Buckets, Disentangled, Rotary, RotaryScaling  # noqa: F401
from lens.registry import Registry
from lens.sparsity import Fixed, Sparsity, Strided  # noqa: F401

Placement = Literal["in", "out", "add"]


@dataclass(frozen=True, kw_only=True)
class Experts:
    """A mixture of experts: a router sends each position to `top_k` of `n` MLPs of `d_mlp` neurons (None: the stack's).

    `normalize` rescales the chosen router probabilities to sum to one (Mixtral). An expert takes the first
    `capacity` positions of a text that are sent to it, and the others pass by (Switch; None: all). `layers`
    have experts, the others one MLP (None: all have). All positions go through one more MLP of `shared` neurons
    (None: there is none), times the sigmoid of a number that a map of its own gives (Qwen2-MoE).
    """

    n: int
    top_k: int
    normalize: bool = True
    capacity: int | None = None
    layers: tuple[int, ...] | None = None
    d_mlp: int | None = None
    shared: int | None = None


@dataclass(frozen=True, kw_only=True)
class MixerConfig(Open):
    """What mixes positions in attention's place: each file of `lens/mixers` has one, whose `kind` is its name.

    With `by_head`, it reads one stream per head for queries, keys and values, as attention does. `endless` ones
    take texts of any length. Where it does not `continue`, there is no past that a run could stand on. What one gives
    that does not `add` stands in the stream's place.
    """

    kind: str
    adds: ClassVar[bool] = True
    by_head: ClassVar[bool] = False
    endless: ClassVar[bool] = False
    continues: ClassVar[bool] = True

    @property
    def reads_source(self) -> bool:
        """Does it look at what an encoder made or was given, and not at the other positions?"""
        return False

    @classmethod
    def of_kind(cls, kind: str) -> type:
        found: Registry[Any] = Registry("lens.mixers", "MIXER", object, "mixer")
        return found.get(kind).config


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Token ids, the patches or a feature map of an image, or the mel frames of a sound, to the first residual stream.

    Learned positions have `n_positions` rows after the first `position_offset` (OPT skips two); `sinusoidal`
    ones are not learned, but the same table (arXiv 1706.03762, §3.5; sines in its first half). `scale`
    multiplies the token embedding (Gemma). `n_types` token types tell the two texts of a pair apart (BERT).
    With `axial` tables, of so many rows and columns and entries each, a position is a place on a map (Reformer).
    The stream begins as so many `copies` of the embedding side by side. With `latents`, so many of that width are
    the stream, and what is embedded is what they read (Perceiver).
    `norm_eps` is that of a LayerNorm on the sum, or with `norm_first` in front of positions (Swin); None: there
    is no norm.

    `d_embed` below `d_model` means factorised embeddings: `project` says whether the tokens alone are
    projected (OPT-350m; no bias) or the normalised sum, which then has `d_embed` entries (ALBERT; with bias).

    With `positions_in_attention`, positions are not added to the stream, but to what queries and keys read in every
    layer. An `empty` stream begins at zero: its `n_positions` are object queries (DETR).
    """

    d_vocab: int
    d_embed: int
    n_positions: int | None = None
    positions_in_attention: bool = False
    position_offset: int = 0
    sinusoidal: bool = False
    axial: tuple[tuple[int, int], tuple[int, int]] | None = None
    copies: int = 1
    latents: tuple[int, int] | None = None
    scale: float = 1.0
    n_types: int = 0
    norm_eps: float | None = None
    norm_first: bool = False
    project: Literal["tokens", "sum"] = "tokens"
    patches: PatchConfig | None = None  # in place of tokens; `d_vocab` is 0
    mel: MelConfig | None = None  # likewise
    features: FeatureConfig | None = None  # likewise
    empty: bool = False  # likewise

    @property
    def n_fixed(self) -> int | None:
        """How many positions every input has; None where they have as many as they have."""
        if self.empty:
            return self.n_positions
        front = self.patches or self.mel
        return None if front is None else front.n_positions

    @property
    def of_tokens(self) -> bool:
        """Are there tokens, with a vector each?"""
        return self.n_fixed is None and self.features is None


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Blocks of one width, over positions that are a map of `grid` rows and columns in reading order (Swin).

    After the last block, two by two positions become one of the next stage.
    """

    n_layers: int
    grid: tuple[int, int]
    d_model: int
    n_heads: int
    d_head: int
    d_mlp: int


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """A stack of blocks, identical but for what is given per layer.

    Norms sit where `norm_placement` says: `in` before each branch (pre-norm), `out` on a branch's output
    before it joins the stream, `add` after the sum (post-norm). Pre-norm is `{in}`, the original
    transformer `{add}`, Gemma-2 `{in, out}`, OLMo-2 `{out}`.

    With `stages`, the sizes here are the last one's; `at` gives those of a layer, its `grid`, and `merge_to`, the
    width of the stage after it where it is the last of its own.

    With two `streams`, `d_model` is that of both side by side: attention reads the second and adds to the first, the
    MLP reads the first and adds to the second (arXiv 1707.04585; Reformer). `branch` has the width of one.

    `shared` gives for every layer the first layer that has the same parameters (ALBERT).

    With `global_tokens`, some tokens are seen by all and see all, through projections of their own: those that
    a run asks for, and without a word of it the first one or none.
    """

    n_layers: int
    d_model: int
    n_heads: int
    d_head: int
    n_kv_heads: int
    d_mlp: int | None  # None: attention only
    causal: bool = True
    streams: Literal[1, 2] = 1
    cross: bool = False  # between attention and MLP, each block looks at what an encoder made of its inputs
    shared: tuple[int, ...] | None = None
    mixer: MixerConfig | tuple[MixerConfig | None, ...] | None = None  # per layer, or of all; None: attention
    stages: tuple[Stage, ...] | None = None
    grid: tuple[int, int] | None = None
    merge_to: int | None = None

    norm: Literal["layer", "rms", "none"] = "layer"
    norm_eps: float = 1e-5
    norm_unit_offset: bool = False  # the weight is stored as (gain - 1): Gemma
    norm_placement: frozenset[Placement] = frozenset({"in"})
    final_norm: bool = True
    parallel: bool = False  # attention and MLP read the same residual stream: GPT-J, NeoX, Phi
    shared_norm: bool = False  # … through the same norm: GPT-J, Phi
    halve_every: int | None = (
        None  # after so many blocks the stream is halved, and all that is added later: RWKV
    )

    attn_bias: frozenset[Literal["q", "k", "v", "o"]] = frozenset()
    attn_scale: float | None = None  # None: d_head ** -0.5
    attn_softcap: float | None = None  # scores become c * tanh(scores / c): Gemma-2
    qk_norm: Literal["head", "all"] | None = None  # over one head, or all heads before splitting (OLMo-2)
    windows: tuple[int | Sparsity | None, ...] | None = None  # per layer: which or how many are visible
    rotary: tuple[Rotary | None, ...] | None = None  # per layer
    relative: Buckets | Disentangled | None = None
    global_tokens: Literal["asked", "first"] | None = None  # see and are seen from everywhere: Longformer

    act_fn: str = "gelu_new"
    gated: bool = False
    mlp_bias: bool = True
    mlp_norm: bool = False  # a LayerNorm between activation function and output (SoLU)
    experts: Experts | None = None

    def at(self, layer: int) -> StackConfig:
        """What one block is: with its mixer, with experts or with one MLP."""
        here: dict[str, Any] = {"mixer": self.mixers[layer]} if isinstance(self.mixer, tuple) else {}
        if self.stages is not None:
            here |= self._staged(layer)
        if self.experts is not None and self.experts.layers is not None and layer not in self.experts.layers:
            here["experts"] = None
        return replace(self, **here) if here else self

    def _staged(self, layer: int) -> dict[str, Any]:
        """What a layer's stage says of it."""
        assert self.stages is not None
        number, stage = [(i, s) for i, s in enumerate(self.stages) for _ in range(s.n_layers)][layer]
        last = layer + 1 == sum(s.n_layers for s in self.stages[: number + 1])
        merges = last and stage is not self.stages[-1]
        sizes = {name: getattr(stage, name) for name in ("grid", "d_model", "n_heads", "d_head", "d_mlp")}
        to = self.stages[number + 1].d_model if merges else None
        return {**sizes, "n_kv_heads": stage.n_heads, "stages": None, "merge_to": to}

    @property
    def d_entry(self) -> int:
        """Width of the embedding."""
        return self.branch.d_model if self.stages is None else self.stages[0].d_model

    @property
    def branch(self) -> StackConfig:
        """The same as attention and MLP see it, which read and write one stream."""
        return self if self.streams == 1 else replace(self, d_model=self.d_model // 2, streams=1)

    @property
    def mixers(self) -> tuple[MixerConfig | None, ...]:
        """What mixes positions in each layer; None: attention."""
        return self.mixer if isinstance(self.mixer, tuple) else (self.mixer,) * self.n_layers

    @property
    def attends(self) -> bool:
        """Does every block mix positions by attention?"""
        return all(mixer is None for mixer in self.mixers)

    @property
    def endless(self) -> bool:
        """Do only scores, or states, know of positions? Then texts may have any length."""
        mixed = all(mixer is not None and mixer.endless for mixer in self.mixers)
        return mixed or (self.attends and self.relative is not None)

    @property
    def across(self) -> StackConfig:
        """What cross-attention is: the same heads, and nothing that depends on positions."""
        return replace(
            self, causal=False, rotary=None, windows=None, relative=None, global_tokens=None, mixer=None
        )

    @property
    def own_terms(self) -> tuple[Literal["q", "k"], ...]:
        """The projections of distances that every layer has for itself."""
        if not isinstance(self.relative, Disentangled) or self.relative.shared:
            return ()
        return tuple(sorted(self.relative.terms))

    def window(self, layer: int) -> int | Sparsity | None:
        return self.windows[layer] if self.windows else None

    def rotary_at(self, layer: int) -> Rotary | None:
        return self.rotary[layer] if self.rotary else None


@dataclass(frozen=True, kw_only=True)
class UnembedConfig:
    """The last residual stream to logits. `d_embed` below `d_model` projects first (OPT-350m).

    `transform` names the activation of a hidden layer of `d_embed` entries with a LayerNorm (masked language
    models); it stands in the projection's place. `scale` multiplies the normalised stream, `softcap` bounds
    the logits (Gemma-2).
    """

    d_vocab: int
    d_embed: int
    bias: bool = False
    scale: float = 1.0
    softcap: float | None = None
    transform: str | None = None
    norm_eps: float = 1e-12  # of the hidden layer's norm


@dataclass(frozen=True, kw_only=True)
class PoolerConfig:
    """One vector per text: the normalised last stream at one token, and a `layer` on it.

    It is read `at` the first token of the text; at the first that is `token` (CLIP's end of text); or at the one
    of the highest id (CLIP's, where its configuration tells another id). Or it is the `mean` of all (Swin). The
    layer has `d_out` entries (None: `d_model`) and an activation function (None: it is linear).
    """

    act_fn: str | None = "tanh"
    at: Literal["first", "token", "highest", "mean"] = "first"
    token: int | None = None
    layer: bool = True
    d_out: int | None = None
    bias: bool = True


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Logits over classes: of each text (from the pooler, or the first token) or of each token.

    `task` says what they tell: the label, whether a pair's second text follows its first, or at which token
    an answer starts and ends; or which object each position found, the last class being none.
    """

    n_classes: int
    of: Literal["text", "token"] = "text"
    task: Literal["label", "follows", "answer", "object"] = "label"


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """The encoder of an encoder–decoder. `shared`: it embeds tokens by the decoder's table."""

    embed: EmbedConfig
    stack: StackConfig
    shared: bool = True


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A whole model. Sizes of the stack are readable here under TransformerLens's names.

    With a `source`, this is an encoder–decoder, `embed` and `stack` are the decoder's, and its texts begin
    with `start_token`, and with the `forced` ones behind it where nothing else is asked for (Whisper).

    With `vision`, this is the model of texts of two that make one vector each (CLIP), and `vision` that of images.

    A model may have any of the three heads, and one that finds the `boxes` of objects. What a run gives is the
    logits of the unembedding; without one, those of the classifier; with neither, the last residual stream.
    """

    family: str
    name: str
    n_ctx: int
    embed: EmbedConfig
    stack: StackConfig
    unembed: UnembedConfig | None
    pooler: PoolerConfig | None = None
    classifier: ClassifierConfig | None = None
    boxes: bool = False
    source: SourceConfig | None = None
    start_token: int | None = None
    forced: tuple[int, ...] = ()
    vision: ModelConfig | None = None
    tied: bool = False  # W_U is W_E: one tensor, taken from the checkpoint's tensors, not from its config
    hf: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)  # the config it came from

    n_layers = property(lambda self: self.stack.n_layers)
    d_model = property(lambda self: self.stack.d_model)
    n_heads = property(lambda self: self.stack.n_heads)
    n_key_value_heads = property(lambda self: self.stack.n_kv_heads)
    d_head = property(lambda self: self.stack.d_head)
    d_mlp = property(lambda self: self.stack.d_mlp)
    d_vocab = property(lambda self: (self.unembed or self.embed).d_vocab)
    act_fn = property(lambda self: self.stack.act_fn)
    attn_only = property(lambda self: self.stack.d_mlp is None)
    causal = property(lambda self: self.stack.causal)  # does no position look at what follows it?

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` gives back an equal config."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """The inverse of `to_dict`.

        Raises:
            ValueError: a field is unknown; the message names it.
            KeyError: a field is missing.
        """
        try:
            return from_plain(cls, values)
        except TypeError as error:
            raise ValueError(f"not a model configuration of this version: {error}") from error
