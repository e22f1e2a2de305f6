"""The tab of digits: what is mixed, how it is taken apart, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import MlassError
from . import html
from .desk import Desk, told
from .digit_run import BUNDLE, DigitRun, graph_picture, run
from .digits import Mixing
from .offered import offered
from .screen import View
from .thumbnails import slots, thumbnails

_WHOLE = "the whole mixture"

_WELCOME = """
<div class="mlass-welcome"><p>The separator sees only the <b>mean</b> of your digits. It cuts it
into 49 patches, the <b>tokens</b>, and finds them one after the other: which strokes does a prior,
learned from single digits, expect next, and which of them does the mixture allow?</p>
<ol><li>Pick two digits on the left.</li><li>Press <b>Separate</b> and watch the tokens come.</li>
<li>Take the same digits apart with another graph or engine.</li></ol></div>
"""

Handler = Callable[..., Any]


@dataclass(frozen=True)
class DigitsTab:
    """gr: the Gradio module."""

    gr: Any
    desk: Desk

    def build(self) -> None:
        """Make the components inside of the tab that is open, and connect them."""
        gr = self.gr
        parts: dict[str, Any] = {"mixing": gr.State(Mixing(), delete_callback=Mixing.leave)}
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=380, elem_classes="mlass-choices"):
                parts |= self._mix() | self._model()
            with gr.Column(scale=8, min_width=480, elem_classes="mlass-result"):
                parts |= self._result()
        self._connect_mixing(parts)
        self._connect_run(parts)

    def _mix(self) -> dict[str, Any]:
        gr, parts = self.gr, {}
        gr.HTML("<h3>1 &nbsp;Mix digits</h3>", padding=False)
        with gr.Row():
            parts["count"] = gr.Radio(
                [("two", 2), ("three", 3), ("four", 4)], value=2, show_label=False,
                container=False, elem_id="digits-count", scale=3, min_width=240,
            )  # fmt: skip
            parts["clear"] = gr.Button(
                "Start over", size="sm", elem_id="digits-clear", scale=1, min_width=90
            )
        with gr.Tabs():
            with gr.Tab("Pick"):
                parts["gallery"] = gr.Gallery(
                    thumbnails(self.desk.folder), columns=10, allow_preview=False,
                    show_label=False, elem_id="digits-gallery", format="png", interactive=False,
                    buttons=[], object_fit="contain", height="auto",
                )  # fmt: skip
            with gr.Tab("Draw"):
                parts["canvas"] = gr.Sketchpad(
                    type="numpy", image_mode="L", canvas_size=(280, 280), fixed_canvas=True,
                    height=340, layers=False, show_label=False, transforms=(), buttons=[],
                    brush=gr.Brush(default_size=12, colors=["#000000"], color_mode="fixed"),
                    elem_id="digits-canvas",
                )  # fmt: skip
                gr.HTML(html.message("Take the brush, draw one digit, and add it."), padding=False)
                parts["drawn"] = gr.Button("Add the drawing", size="sm", elem_id="digits-drawn")
            with gr.Tab("Upload"):
                parts["what"] = gr.Radio(
                    ["one digit", _WHOLE], value="one digit", label="The image shows"
                )
                parts["file"] = gr.File(
                    label="PNG, JPEG or another image", height=120, elem_id="digits-file"
                )
        parts["slots"] = gr.HTML(slots(Mixing()), elem_id="digits-slots", padding=False)
        return parts

    def _model(self) -> dict[str, Any]:
        gr, parts = self.gr, {}
        offer = offered(self.desk.choices(BUNDLE), 2, "additive", "Auto")
        gr.HTML("<h3>2 &nbsp;Choose a graph and an engine</h3>", padding=False)
        with gr.Row():
            parts["shape"] = gr.Dropdown(
                list(offer.graphs), value=offer.graph, label="Graph", elem_id="digits-shape",
                filterable=False, min_width=140,
            )  # fmt: skip
            parts["engine"] = gr.Dropdown(
                list(offer.engines), value=offer.engine, label="Engine", elem_id="digits-engine",
                filterable=False, min_width=140,
            )  # fmt: skip
        parts["why"] = gr.HTML(offer.why, padding=False, elem_id="digits-why")
        with gr.Row():
            parts["run"] = gr.Button("Separate", variant="primary", elem_id="digits-run")
            parts["stop"] = gr.Button("Stop", interactive=False, elem_id="digits-stop")
        with gr.Accordion("More settings", open=False, elem_id="digits-more"):
            with gr.Row():
                parts["candidates"] = gr.Slider(
                    1,
                    self.desk.limits.candidates,
                    value=16,
                    step=1,
                    label="Candidates",
                    min_width=200,
                )
                parts["seed"] = gr.Number(0, precision=0, minimum=0, label="Seed", min_width=80)
            parts["refine"] = gr.Checkbox(True, label="Sharpen the result (learned refiner)")
            parts["every"] = gr.Checkbox(
                True, label="Show every token (slower)", elem_id="digits-every"
            )
        return parts

    def _result(self) -> dict[str, Any]:
        gr, parts = self.gr, {}
        parts["status"] = gr.HTML("", elem_id="digits-status", padding=False)
        parts["stage"] = gr.HTML(_WELCOME, elem_id="digits-stage", padding=False)
        with gr.Tabs(elem_id="digits-details"):
            with gr.Tab("Graph and messages"):
                graph = self.desk.choices(BUNDLE).graph("additive", 2)
                parts["picture"] = gr.HTML(graph_picture(graph), elem_id="digits-graph")
            with gr.Tab("Evidence"):
                gr.HTML(html.message(
                    "How well each token of the mixture was foretold: higher is better."
                ))  # fmt: skip
                parts["evidence"] = gr.HTML("", elem_id="digits-evidence")
            with gr.Tab("Candidates"):
                gr.HTML(html.message("The separations that went on side by side, as a tree."))
                parts["tree"] = gr.HTML("", elem_id="digits-tree")
            with gr.Tab("In Python"):
                parts["code"] = gr.Code("", language="python", show_label=False, interactive=False)
        parts["archive"] = gr.DownloadButton(
            "Download everything (ZIP)", interactive=False, elem_id="digits-download"
        )
        return parts

    def _connect_mixing(self, parts: dict[str, Any]) -> None:
        def pick(mixing: Mixing, event: Any) -> tuple[Any, ...]:
            return changed(mixing, lambda: mixing.pick(event.index))

        pick.__annotations__ = {"event": self.gr.SelectData}  # Gradio reads what it should give
        outputs = [parts["mixing"], parts["slots"]]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        quiet |= {"concurrency_limit": None}
        mixing = parts["mixing"]
        parts["gallery"].select(pick, mixing, outputs, **quiet)
        parts["drawn"].click(_draw, [mixing, parts["canvas"]], outputs, **quiet)
        parts["file"].upload(self._upload, [mixing, parts["file"], parts["what"]],
                             [*outputs, parts["file"]], **quiet)  # fmt: skip
        parts["clear"].click(_clear, mixing, outputs, **quiet)
        model = [parts[name] for name in ("shape", "engine")]
        shown = [*model, parts["why"], parts["picture"]]
        parts["count"].input(self._resize, [mixing, parts["count"], *model],
                             [*outputs, *shown], **quiet)  # fmt: skip
        parts["shape"].input(self._offer, [mixing, *model], shown, **quiet)

    def _connect_run(self, parts: dict[str, Any]) -> None:
        names = ("mixing", "shape", "engine", "candidates", "seed", "refine", "every")
        outputs = ("status", "stage", "picture", "evidence", "tree", "code", "archive")
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        light = quiet | {"concurrency_limit": None}
        parts["run"].click(html.waiting, None, parts["status"], **light).then(
            self._run,
            [parts[name] for name in names],
            [parts[name] for name in (*outputs, "run", "stop")],
            concurrency_limit=1,
            concurrency_id="separate",
            **quiet,
        )
        parts["stop"].click(Mixing.leave, parts["mixing"], None, **light)

    def _upload(self, mixing: Mixing, path: str, what: str) -> tuple[Any, ...]:
        notices: list[str] = []

        def act() -> None:
            notices.extend(mixing.upload(path, self.desk.limits, what == _WHOLE))

        same, shown = changed(mixing, act, path)
        return same, shown + "".join(map(html.message, notices)), None

    def _resize(self, mixing: Mixing, count: int, shape: str, engine: str) -> tuple[Any, ...]:
        out = changed(mixing, lambda: mixing.resize(count))
        return (*out, *self._offer(mixing, shape, engine))

    def _offer(self, mixing: Mixing, shape: str, engine: str) -> tuple[Any, ...]:
        choices = self.desk.choices(BUNDLE)
        offer = offered(choices, mixing.count, shape, engine)
        update = self.gr.update
        return (
            update(choices=list(offer.graphs), value=offer.graph),
            update(choices=list(offer.engines), value=offer.engine),
            offer.why,
            graph_picture(choices.graph(offer.graph, mixing.count)),
        )

    def _run(self, mixing: Mixing, *asked: Any) -> Iterator[tuple[Any, ...]]:
        update = self.gr.update
        for view in run(self.desk, mixing, DigitRun(*asked)):
            archive = None if view.archive is None else str(view.archive)
            yield (
                *_shown(view, update),
                update(value=archive, interactive=archive is not None),
                update(interactive=not view.running),
                update(interactive=view.running),
            )


def changed(mixing: Mixing, act: Handler, path: str | None = None) -> tuple[Any, ...]:
    """The mixture after a change, and how it is shown: with what went wrong, if anything did."""
    problem = ""
    try:
        act()
    except MlassError as error:
        problem = html.problem(told(error, path))
    return mixing, slots(mixing) + problem


def _draw(mixing: Mixing, canvas: Any) -> tuple[Any, ...]:
    return changed(mixing, lambda: mixing.draw((canvas or {}).get("composite")))


def _clear(mixing: Mixing) -> tuple[Any, ...]:
    return changed(mixing, mixing.clear)


def _shown(view: View, update: Handler) -> tuple[Any, ...]:
    """The view's HTML; what a frame does not touch stays as it is."""
    parts = (view.status, view.stage, view.picture)
    details = (view.evidence, view.tree, view.code)
    kept = tuple(part or update() for part in parts)
    return (*kept, *(details if not view.running else [update()] * 3))
