"""The sidebar's boxes for models that read images, sources with targets, or texts in both directions."""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st
import torch
from numpy.typing import NDArray

from dashboard import image_sets, samples, scene, state
from dashboard.components.thumbnails import thumbnails
from dashboard.figures.picture import levels
from dashboard.figures.thumbnails import thumbnails_payload
from dashboard.image_sets import ImageSet
from dashboard.kinds import SEQ2SEQ, VISION, kind_of
from dashboard.plain import plain
from dashboard.scene import Scene
from dashboard.state import View
from lens.inputs import ModelInputs
from lens.nearest import unknown

SHOWN = 96  # pixels of the chosen image
ANY = "any"


def boxes(view: View, name: str, model: Any) -> tuple[View, Scene | None]:
    """What is looked at, with the boxes that change it; None after saying why it cannot be read."""
    try:
        if kind_of(model.cfg) == VISION:
            return _images(view, name, model)
        return view, (_source if kind_of(model.cfg) == SEQ2SEQ else _text)(view, name, model)
    except ValueError as error:
        st.error(plain(str(error)))
        return view, None


# ---- texts


def _box(label: str, field: str, shown: dict[str, str], **options: Any) -> None:
    """A box of one of the texts; a change of any puts all of them into the address."""
    others = {key: text for key, text in shown.items() if key != field}
    st.text_area(
        label, value=shown[field], height=68, max_chars=state.LONGEST,
        **state.bound(field, shown[field], **others, query=None), **options,
    )  # fmt: skip


def _given(view: View, usual: samples.Texts, *fields: str) -> dict[str, str]:
    """The texts of the address, or where it has none the usual ones."""
    told = {field: getattr(view, field) for field in fields}
    if all(text is None for text in told.values()):
        known = {"prompt": usual.text, "corrupt": usual.other, "second": usual.second}
        return {field: known.get(field, "") for field in fields}
    return {field: text or "" for field, text in told.items()}


def _source(view: View, name: str, model: Any) -> Scene | None:
    texts = _given(view, samples.TEXTS.get(name, samples.SOURCE), "prompt", "corrupt", "answer")
    _box("Source", "prompt", texts, help="What the encoder reads. Ctrl + Enter takes it over")
    _box(
        "Target",
        "answer",
        texts,
        placeholder="what the model says",
        help="Empty: what the model itself generates",
    )
    _box(
        "Counterfactual source", "corrupt", texts, placeholder="as many tokens as the source",
        help="Its values can stand in for a head's output",
    )  # fmt: skip
    found = scene.of_source(name, model, texts["prompt"], texts["answer"], texts["corrupt"])
    _why(found)
    return found


def _text(view: View, name: str, model: Any) -> Scene | None:
    texts = _given(view, samples.TEXTS.get(name, samples.Texts(samples.TEXT)), "prompt", "corrupt", "second")
    _box("Text", "prompt", texts, help="What the model reads. Ctrl + Enter takes it over")
    if model.cfg.embed.n_types > 1:
        _box("Second text", "second", texts, placeholder="none", help="For a pair of texts, read as one")
    _box(
        "Counterfactual text", "corrupt", texts, placeholder="as many tokens as the text",
        help="Its vector is compared; its values can stand in for a head's output",
    )  # fmt: skip
    found = scene.of_text(name, model, texts["prompt"], texts["second"], texts["corrupt"])
    _why(found)
    return found


def _why(found: Scene) -> None:
    if found.other is None and found.other_text.strip():
        st.caption(f":material/info: {plain(f'No counterfactual: {found.why}.')}")


# ---- images


def _images(view: View, name: str, model: Any) -> tuple[View, Scene | None]:
    known, classes = image_sets.test_images(model.cfg), image_sets.classes_of(model.cfg)
    view = _check_image(view, "image", known)
    view = _check_image(view, "other_image", known)
    key = view.image or ("0" if known is not None else None)
    left, right = st.columns(2, gap="small")
    if key is None:
        with left:
            _choose("image", None, known, model, "Image")
        st.info(plain(f"{name} comes with no images: upload one."), icon=":material/upload:")
        return view, None
    pixels, label = _pixels(key, known)
    view, answer, wrong = _classes(view, model, classes, pixels, label)
    other = view.other_image
    if other is None and known is not None and wrong is not None:
        first = known.first_of(wrong)
        other = None if first is None else str(first)
    with left:
        _choose("image", key, known, model, "Image")
    with right:
        _choose("other_image", other, known, model, "Counterfactual")
    if classes:
        a, b = st.columns(2, gap="small")
        names = list(classes)
        for column, title, field, now in ((a, "Answer", "answer", answer), (b, "Instead of", "wrong", wrong)):
            shown = None if now is None else names[now]
            column.selectbox(
                title, names, index=now, **state.bound(field, shown, prompt=None, corrupt=None),
                help="The label, or else the likeliest class" if field == "answer" else "The likeliest other class",
            )  # fmt: skip
    title = (
        f"Image {key}"
        if label is None
        else f"Image {key}, which shows {classes[label] if classes else label}"
    )
    counterfactual = None if other is None else _pixels(other, known)[0]
    found = scene.of_image(
        name, model, pixels, counterfactual, title=title, classes=classes, answer=answer, wrong=wrong
    )
    return view, found


def _check_image(view: View, field: str, known: ImageSet | None) -> View:
    """The view without an image that there is not."""
    key = getattr(view, field)
    if key is None:
        return view
    if image_sets.UPLOADED.fullmatch(key):
        if image_sets.uploaded(key) is None:
            return state.refuse(view, field, f"{field} {key} was uploaded to another server, or long ago")
        return view
    if known is None:
        return state.refuse(view, field, f"{field} {key}: this model comes with no images")
    if int(key) >= len(known):
        return state.refuse(view, field, f"{field} {key}: there are {len(known)} images, counted from 0")
    return view


def _pixels(key: str, known: ImageSet | None) -> tuple[NDArray[np.float32], int | None]:
    """An image by its name in the address, and the class it shows where that is known."""
    uploaded = image_sets.uploaded(key)
    if uploaded is not None:
        return uploaded, None
    assert known is not None
    return known.images[int(key)], int(known.labels[int(key)])


def _classes(
    view: View, model: Any, classes: tuple[str, ...], pixels: NDArray[np.float32], label: int | None
) -> tuple[View, int | None, int | None]:
    """The answer, which is the label or else the likeliest class, and the likeliest other class."""
    if not classes:
        return view, None, None
    order = ranked(model, pixels)
    found: dict[str, int] = {}
    for field in ("answer", "wrong"):
        text = getattr(view, field)
        if text is None or view.prompt is not None:
            continue  # beside a prompt they are about another model's text
        if text not in classes:
            view = state.refuse(view, field, unknown("class", text, classes, of=model.name))
        elif field == "wrong" and classes.index(text) == found.get("answer"):
            view = state.refuse(view, field, f"{text} is the answer")
        else:
            found[field] = classes.index(text)
    answer = found.get("answer", order[0] if label is None else label)
    others = [c for c in order if c != answer]
    wrong = found.get("wrong", others[0] if others else None)
    if wrong == answer:
        wrong = others[0] if others else None
    return view, answer, wrong


def ranked(model: Any, pixels: NDArray[np.float32]) -> list[int]:
    """The classes of an image, likeliest first; computed once per session."""
    memory = st.session_state.setdefault("classes", {})
    key = (model.revision, pixels.tobytes())
    if key not in memory:
        memory.clear()
        image = torch.as_tensor(pixels, dtype=model.dtype)[None]
        with torch.no_grad():
            memory[key] = model(ModelInputs(image=image))[0].argsort(descending=True).tolist()
    return memory[key]


def enlarged(pixels: NDArray[np.float32], side: int = SHOWN) -> NDArray[np.uint8]:
    """An image for the page: small ones with every pixel as a square."""
    found = levels(pixels)
    times = max(1, side // found.shape[1])
    return found.repeat(times, 0).repeat(times, 1)


def _choose(field: str, key: str | None, known: ImageSet | None, model: Any, title: str) -> None:
    """The chosen image, and a popover with all test images by what they show, and a place for one's own."""
    if key is not None:
        pixels, label = _pixels(key, known)
        shows = "" if label is None else f": shows {label}"
        name = "uploaded" if image_sets.uploaded(key) is not None else key
        st.caption(plain(f"{title} {name}{shows}"))
        st.image(enlarged(pixels), width=SHOWN)
    else:
        label = None
        st.caption(plain(f"{title}: none"))

    def put(to: Any) -> None:
        changes: dict[str, Any] = {field: str(to)}
        if field == "image":
            changes |= {"answer": None, "wrong": None}
        state.put(**changes, prompt=None, corrupt=None)

    with st.popover("Choose", icon=":material/image:", width="stretch"):
        if known is not None:
            labels = [ANY, *map(str, sorted(set(known.labels.tolist())))]
            usual = ANY if label is None else str(label)
            shows = st.selectbox("That show", labels, index=labels.index(usual), key=f"shows_{field}_{usual}")
            index = [i for i, one in enumerate(known.labels.tolist()) if shows in (ANY, str(one))]
            chosen = int(key) if key is not None and key.isdigit() else None
            thumbnails(
                thumbnails_payload(
                    known.images[index], index, [str(known.labels[i]) for i in index],
                    title=f"{len(index)} test images",
                ),
                key=f"thumbnails_{field}", selected=chosen, on_pick=put,
            )  # fmt: skip
            st.number_input(
                "Or by index", 0, len(known) - 1, chosen, **state.shown(f"index_{field}", chosen, put),
                help=f"Test images 0 to {len(known) - 1}",
            )  # fmt: skip
        _upload(field, model, put)


def _upload(field: str, model: Any, put: Any) -> None:
    """A place for a picture of one's own."""
    patches = model.cfg.embed.patches
    size = " × ".join(map(str, patches.image_size))
    widget, problem = f"upload_{field}", f"upload_{field}_error"

    def take() -> None:
        given = st.session_state[widget]
        st.session_state[problem] = None
        if given is None:
            return
        try:
            put(image_sets.take_in(model, given.name, given.getvalue()))
        except ValueError as error:
            st.session_state[problem] = str(error)

    fits = "any PNG" if model.preprocessing is not None else f"a PNG of {size} pixels"
    st.file_uploader(
        f"Your own: {fits}, or .npy as the model reads it", type=["png", "npy"], key=widget, on_change=take,
        max_upload_size=4,
    )  # fmt: skip
    if st.session_state.get(problem):
        st.error(plain(st.session_state[problem]))
