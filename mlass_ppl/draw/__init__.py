"""Pictures of graphs, separations, sounds and reports. matplotlib is imported when one is drawn."""

from .evidence import draw_evidence as draw_evidence
from .graph import draw_graph as draw_graph
from .graph import graph_svg as graph_svg
from .graph import layout as layout
from .marginals import draw_marginals as draw_marginals
from .messages import draw_messages as draw_messages
from .report import ReportPicture as ReportPicture
from .report import ReportRow as ReportRow
from .report import ReportSection as ReportSection
from .report import ReportTable as ReportTable
from .report import report_html as report_html
from .report import write_report as write_report
from .separation import draw_candidates as draw_candidates
from .separation import draw_estimates as draw_estimates
from .separation import draw_separation as draw_separation
from .spectrogram import draw_spectrograms as draw_spectrograms
from .tree import draw_tree as draw_tree
from .uncertainty import draw_uncertainty as draw_uncertainty
