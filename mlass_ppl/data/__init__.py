"""Data sets, read by small readers of our own."""

from .mnist import VALIDATION as VALIDATION
from .mnist import Split as Split
from .mnist import download_mnist as download_mnist
from .mnist import find_data as find_data
from .mnist import mnist_images as mnist_images
from .mnist import mnist_labels as mnist_labels
from .mnist import read_idx as read_idx
