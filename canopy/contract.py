"""The names on which the rooms agree: files, record keys, versions.

Promises: constants, and how a shard is named; nothing here reads or writes. Preprocessing writes by them, the
trainer and prediction read by them; neither imports the other.
"""

from __future__ import annotations

DATA_FORMAT_VERSION = 1  # of the data folder: readers refuse a newer one
MODEL_FORMAT_VERSION = 1  # of model.json: readers refuse a newer one

# In the environment: an id that all starts of one run share; in a pod it is the uid of its Job.
RUN_ID = "CANOPY_RUN_ID"
# In a training process's environment: an earlier one of the same launcher has saved a checkpoint.
HAS_TRAINED = "CANOPY_HAS_TRAINED"

IMAGE_ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif")  # of an image's file name, in any case

# The data folder. `DATASET_INFO` is written last: it is the commit marker.
DATASET_INFO = "dataset_info.json"
FEATURES_JSON = "features.json"
LABELS_TXT = "labels.txt"
CANOPY_JSON = "canopy.json"
REJECTS_JSONL = "rejects.jsonl"

# The keys of a record (TensorFlow Model Garden's, and multi-hot beside the class ids).
KEY_ENCODED = "image/encoded"
KEY_FORMAT = "image/format"
KEY_FILENAME = "image/filename"
KEY_HEIGHT = "image/height"
KEY_WIDTH = "image/width"
KEY_LABEL = "image/class/label"
KEY_MULTI_HOT = "image/class/multi_hot"

# The export folder. `MODEL_JSON` is written last.
MODEL_JSON = "model.json"
MODEL_TFLITE = "model.tflite"
KEY_REDUCED = "decodes_reduced"  # of model.json, true: by `REDUCTIONS`; earlier exports decode all whole
KEY_TFLITE_SHA256 = "tflite_sha256"  # of model.json; exports of earlier versions have none
SIGNATURE_JPEG = "serving_default"  # string[batch], JPEG bytes -> scores float32[batch, classes]
SIGNATURE_RGB = "rgb"  # uint8[batch, height, width, 3] -> scores float32[batch, classes]

# Adobe APP14, version 100, no flags, transform 0: "four components, inverted CMYK, no YCCK". Right after
# SOI it makes every decoder read what Pillow assumes anyway.
ADOBE_MARKER = bytes.fromhex("FFEE000E41646F626500640000000000")

# Added before a resized value's fraction is cut off. Resized values lie on lattices (on halves, if a picture
# grows by 1.5; on multiples of 1/1849, if it shrinks from 256 pixels to 96), and float sums in another order
# land on either side of such a point: cut at one, training and prediction see pixels one apart. Near 0.5071
# lie the fewest, for sides of 32 to 512 pixels and the sizes that networks take.
ROUNDING = 0.4929

# Pictures that shrink to less than two thirds are resized with antialiasing, others by plain bilinear
# interpolation: there each result takes the two nearest pixels along an axis, and with results at most 1.5
# pixels apart none of the pixels counts for less than a quarter. Antialiasing costs TensorFlow four times as
# much, five times what decoding does.
PLAIN_TO = 1.5  # pixels of the original for one of the result, along the axis that shrinks more

# A JPEG whose sides both are so many times the network's or longer is decoded at that part of its size. The
# decoder leaves out the fine half (three quarters, seven eighths) of each block's frequencies, as a filter
# would afterwards, and in 224 pixels a picture of 1,024 is there in two fifths of the time, most of which
# antialiasing would take.
REDUCTIONS = (2, 4, 8)

BETA = 2.0  # of F-beta: Kaggle's Planet competition scores F2
DEFAULT_THRESHOLD = 0.2  # where validation cannot tell: Kaggle's own baseline


def shard_name(dataset: str, split: str, index: int, count: int) -> str:
    """Names a shard as TensorFlow Datasets expects it: `planet-train.tfrecord-00000-of-00016`."""
    return f"{dataset}-{split}.tfrecord-{index:05d}-of-{count:05d}"
