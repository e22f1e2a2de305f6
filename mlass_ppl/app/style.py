"""How the page looks: the system's own fonts, so that nothing is fetched; two columns; tiles."""

from __future__ import annotations

from typing import Any

_SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")

CSS = """
.gradio-container { max-width: 1240px !important; margin: 0 auto; }
footer { display: none !important; }
.mlass-head h1 { font-size: 1.55rem; margin: .2rem 0 .1rem; }
.mlass-head p { margin: 0 0 .3rem; color: var(--body-text-color-subdued); }
.mlass-choices { gap: 9px !important; }
#digits-gallery, #digits-gallery .grid-wrap { min-height: 0 !important; height: auto !important;
  overflow: visible !important; }
#digits-gallery .grid-container { grid-template-columns: repeat(10, 1fr) !important;
  gap: 5px !important; grid-auto-rows: auto !important; }
#digits-gallery .grid-container button { aspect-ratio: 1; width: 100%; height: auto;
  min-width: 0 !important; }
#digits-gallery img { image-rendering: pixelated; }
#digits-file .icon-wrap, #sound-file .icon-wrap { display: none; }
.mlass-choices h3 { font-size: 1.02rem; font-weight: 650; margin: .25rem 0 0; }
.mlass-welcome { border: 1px solid var(--border-color-primary); border-radius: 10px;
  padding: .4rem 1.2rem .7rem; background: var(--background-fill-secondary); max-width: 46rem; }
.mlass-welcome li { margin: .15rem 0; }
.mlass-slots { display: flex; align-items: center; gap: .4rem; flex-wrap: wrap; min-height: 60px; }
.mlass-slot { width: 52px; height: 52px; border-radius: 6px; image-rendering: pixelated;
  display: inline-block; margin: 0; }
.mlass-free { border: 2px dashed var(--border-color-primary); line-height: 46px;
  text-align: center; color: var(--body-text-color-subdued); font-size: 1.2rem; }
.mlass-mean { outline: 2px solid #0072B2; outline-offset: 1px; }
.mlass-sign { color: var(--body-text-color-subdued); font-size: 1.15rem; }
.mlass-row { margin: .5rem 0 .2rem; }
.mlass-row h4 { margin: 0 0 .25rem; font-size: .82rem; font-weight: 600;
  color: var(--body-text-color-subdued); }
.mlass-row > div { display: flex; flex-wrap: wrap; gap: .7rem; }
.mlass-tile { margin: 0; width: 116px; text-align: center; }
.mlass-tile figcaption { font-size: .8rem; margin-bottom: .15rem; }
.mlass-tile small { color: var(--body-text-color-subdued); font-size: .74rem; }
.mlass-pixels { width: 116px; height: 116px; image-rendering: pixelated; border-radius: 6px;
  margin: 0; display: block; }
.mlass-picture { max-width: 100%; height: auto; margin: 0 auto; display: block;
  background: white; border-radius: 8px; }
#digits-graph .mlass-picture { max-height: 520px; }
.mlass-progress { margin: .1rem 0 .3rem; }
.mlass-progress span { margin-left: .8rem; color: var(--body-text-color-subdued);
  font-size: .85rem; }
.mlass-progress > div { height: 7px; border-radius: 4px; background: var(--border-color-primary);
  margin-top: .35rem; overflow: hidden; }
.mlass-progress > div > div { height: 100%; background: #0072B2; }
.mlass-note { font-size: .86rem; color: var(--body-text-color-subdued); margin: .15rem 0; }
.mlass-problem { border-left: 4px solid #D55E00; border-radius: 4px; padding: .45rem .8rem;
  background: color-mix(in srgb, #D55E00 10%, transparent); margin: .3rem 0;
  overflow-wrap: anywhere; }
.mlass-problem p { margin: .15rem 0 0; white-space: pre-wrap; }
.mlass-why { font-size: .86rem; color: var(--body-text-color-subdued); }
.mlass-why p { margin: 0 0 .2rem; }
.mlass-why summary { cursor: pointer; }
.mlass-why ul { margin: .2rem 0 .3rem 1.1rem; padding: 0; list-style: disc; }
.mlass-why li { margin: .2rem 0; overflow-wrap: anywhere; }
.mlass-facts { margin: .5rem 0; font-size: .86rem; border-collapse: collapse; }
.mlass-facts, .mlass-facts tr, .mlass-facts th, .mlass-facts td { border: 0 !important; }
.mlass-facts th { text-align: left; font-weight: 600; padding: .1rem 1.4rem .1rem 0 !important;
  color: var(--body-text-color-subdued); }
.mlass-facts td { padding: .1rem 0 !important; }
"""


def theme(gr: Any) -> Any:
    """Gradio's plain theme in the colours of the library's pictures."""
    return gr.themes.Base(
        primary_hue="blue", neutral_hue="slate", radius_size="md", spacing_size="md",
        text_size="md", font=_SANS, font_mono=_MONO,
    ).set(
        button_primary_background_fill="#0072B2",
        button_primary_background_fill_hover="#005f96",
        slider_color="#0072B2",
        body_text_color_subdued="#586273",
        body_text_color_subdued_dark="#a8b0bd",
    )  # fmt: skip
