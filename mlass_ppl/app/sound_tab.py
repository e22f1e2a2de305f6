"""The tab of sounds: what is separated, how, and the stems to hear and to see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import MlassError
from . import html
from .desk import Desk, told
from .offered import offered
from .sound_run import MOST, SoundRun, SoundView, check_stems, run
from .sounds import SOUND_BUNDLES, Listening, stems_of

_WELCOME = """
<div class="mlass-welcome"><p>A sound is cut into short <b>tokens</b>, some hundred of them a
second. Each stem has a learned prior of its own; at every token the separator weighs which stems
would sound like the mixture together.</p><ol><li>Upload a sound, or make the example.</li>
<li>Choose the stems that are in it.</li><li>Press <b>Separate</b>: a second of music takes several
seconds.</li></ol></div>
"""


@dataclass(frozen=True)
class SoundTab:
    """gr: the Gradio module."""

    gr: Any
    desk: Desk

    def build(self, tab: Any) -> None:
        """Make the components inside of the open `tab`, and connect them."""
        gr = self.gr
        bundles = [name for name in SOUND_BUNDLES if stems_of(name)]
        if not bundles:
            gr.Markdown(
                "No bundle of sound is installed here; `mlass models` lists those that are."
            )
            return
        parts: dict[str, Any] = {
            "listening": gr.State(Listening(), delete_callback=Listening.leave)
        }
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=380, elem_classes="mlass-choices"):
                parts |= self._choices(bundles)
            with gr.Column(scale=8, min_width=480, elem_classes="mlass-result"):
                parts |= self._result()
        self._connect(parts, tab)

    def _choices(self, bundles: list[str]) -> dict[str, Any]:
        gr, parts = self.gr, {}
        limits = self.desk.limits
        gr.HTML("<h3>1 &nbsp;Choose a sound</h3>", padding=False)
        parts["bundle"] = gr.Radio(
            [(_ABOUT[name], name) for name in bundles], value=bundles[0], label="What is in it",
            elem_id="sound-bundle",
        )  # fmt: skip
        parts["file"] = gr.File(
            label=f"A sound file, up to {limits.sound_seconds:g} s and "
            f"{limits.upload_bytes / 1e6:g} MB", height=140, elem_id="sound-file",
        )  # fmt: skip
        parts["example"] = gr.Button("Make an example", size="sm", elem_id="sound-example")
        parts["problem"] = gr.HTML(
            html.message("No sound yet."), elem_id="sound-problem", padding=False
        )
        gr.HTML("<h3>2 &nbsp;Choose stems, a graph and an engine</h3>", padding=False)
        names = stems_of(bundles[0])
        parts["stems"] = gr.CheckboxGroup(
            list(names), value=list(names[:2]), label=f"Stems, 2 to {MOST}", elem_id="sound-stems"
        )
        with gr.Row():
            parts["shape"] = gr.Dropdown(
                ["additive"], value="additive", label="Graph", filterable=False, min_width=140,
                elem_id="sound-shape",
            )  # fmt: skip
            parts["engine"] = gr.Dropdown(
                ["Auto"], value="Auto", label="Engine", filterable=False, min_width=140,
                elem_id="sound-engine",
            )  # fmt: skip
        parts["why"] = gr.HTML(html.message("Loading the bundle."), padding=False)
        with gr.Row():
            parts["run"] = gr.Button("Separate", variant="primary", elem_id="sound-run")
            parts["stop"] = gr.Button("Stop", interactive=False, elem_id="sound-stop")
        with gr.Accordion("More settings", open=False, elem_id="sound-more"):
            with gr.Row():
                parts["candidates"] = gr.Slider(
                    1, limits.candidates, value=4, step=1, label="Candidates", min_width=200,
                    elem_id="sound-candidates",
                )  # fmt: skip
                parts["seed"] = gr.Number(0, precision=0, minimum=0, label="Seed", min_width=80)
            parts["wiener"] = gr.Checkbox(True, label="Stems add up to the sound (Wiener filter)")
        return parts

    def _result(self) -> dict[str, Any]:
        gr, parts = self.gr, {}
        parts["status"] = gr.HTML(_WELCOME, elem_id="sound-status", padding=False)
        options: dict[str, Any] = {"interactive": False, "visible": False, "buttons": []}
        options["type"] = "filepath"
        parts["given"] = gr.Audio(label="the sound", elem_id="sound-given", **options)
        with gr.Row():
            parts["audio"] = [
                gr.Audio(label=str(place), elem_id=f"sound-stem-{place}", min_width=300, **options)
                for place in range(1, MOST + 1)
            ]
        parts["picture"] = gr.HTML("", elem_id="sound-picture", padding=False)
        parts["archive"] = gr.DownloadButton(
            "Download everything (ZIP)", interactive=False, elem_id="sound-download"
        )
        return parts

    def _connect(self, parts: dict[str, Any], tab: Any) -> None:
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        light = quiet | {"concurrency_limit": None}
        listening, bundle = parts["listening"], parts["bundle"]
        heard = [listening, parts["given"], parts["problem"]]
        parts["file"].upload(self._upload, [listening, parts["file"]], [*heard, parts["file"]],
                             **light)  # fmt: skip
        parts["example"].click(self._example, [listening, bundle], heard, **light)
        model = [parts["stems"], parts["shape"], parts["engine"]]
        shown = [*model[1:], parts["why"]]
        bundle.input(self._stems, bundle, parts["stems"], **light).then(
            self._offer, [bundle, *model], shown, **light
        )
        tab.select(self._offer, [bundle, *model], shown, **light)  # loads the bundle
        for part in model[:2]:
            part.input(self._offer, [bundle, *model], shown, **light)
        names = ("listening", "bundle", "stems", "shape", "engine", "candidates", "seed", "wiener")
        outputs = [parts["status"], parts["picture"], *parts["audio"]]
        outputs += [parts[name] for name in ("archive", "run", "stop")]
        parts["run"].click(html.waiting, None, parts["status"], **light).then(
            self._run,
            [parts[name] for name in names],
            outputs,
            concurrency_limit=1,
            concurrency_id="separate",
            **quiet,
        )
        parts["stop"].click(Listening.leave, listening, None, **light)

    def _upload(self, listening: Listening, path: str) -> tuple[Any, ...]:
        return (
            *self._heard(listening, lambda: listening.upload(path, self.desk.limits), path),
            None,
        )

    def _example(self, listening: Listening, bundle: str) -> tuple[Any, ...]:
        return self._heard(listening, lambda: listening.make(bundle))

    def _heard(self, listening: Listening, act: Any, path: str | None = None) -> tuple[Any, ...]:
        """The sound after it was changed, a player of it, and what went wrong."""
        update = self.gr.update
        try:
            act()
            given, seconds = listening.write(self.desk.place()), listening.seconds
        except MlassError as error:
            return listening, update(), html.problem(told(error, path))
        label = f"the sound: {listening.name}"
        told_of = html.message(f"{listening.name}: {seconds:.1f} s")
        return listening, update(value=str(given), label=label, visible=True), told_of

    def _stems(self, bundle: str) -> Any:
        names = stems_of(bundle)
        return self.gr.update(choices=list(names), value=list(names[:2]))

    def _offer(self, bundle: str, stems: Sequence[str], shape: str, engine: str) -> tuple[Any, ...]:
        update = self.gr.update
        try:
            offer = offered(self.desk.choices(bundle), check_stems(stems), shape, engine)
        except MlassError as error:
            return update(), update(), html.problem(told(error))
        return (
            update(choices=list(offer.graphs), value=offer.graph),
            update(choices=list(offer.engines), value=offer.engine),
            offer.why,
        )

    def _run(self, listening: Listening, *asked: Any) -> Iterator[tuple[Any, ...]]:
        update = self.gr.update
        for view in run(self.desk, listening, SoundRun(*asked)):
            yield (
                view.status,
                view.picture,
                *self._players(view),
                update(
                    value=None if view.archive is None else str(view.archive),
                    interactive=view.archive is not None,
                ),
                update(interactive=not view.running),
                update(interactive=view.running),
            )

    def _players(self, view: SoundView) -> list[Any]:
        """One for each stem; those of a result before are put away when the next one begins."""
        update = self.gr.update
        players = [update(value=str(path), label=name, visible=True) for name, path in view.files]
        return players + [update(value=None, visible=False)] * (MOST - len(players))


_ABOUT = {"band": "Music (bass, drums, ...)", "spoken": "Spoken digits, 8 kHz"}
