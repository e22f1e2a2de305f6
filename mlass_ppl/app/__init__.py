"""A page in the browser that separates digits and sounds and shows each token while it is found.

Served by Gradio (the extra [app]), which is imported when a page is made.
"""

from .choices import Choices as Choices
from .choices import Offer as Offer
from .choices import Shape as Shape
from .limits import Limits as Limits
from .serve import AppConfig as AppConfig
from .serve import serving as serving
