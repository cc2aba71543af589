"""Images and labels: where they come from and how they are split.

Nothing here imports torch; what a model sees of an image (views, batches) is in the modules beside this one.
"""

from understudy.data.dataset import Dataset, Images, MemoryImages, Split
from understudy.data.loading import load

__all__ = ["Dataset", "Images", "MemoryImages", "Split", "load"]
