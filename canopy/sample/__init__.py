"""A sample archive of drawn satellite chips, in the layout of Kaggle's "Planet: Understanding the Amazon".

Promises: `write_archive` needs no download, no TensorFlow and no Beam; its files show every trait of
the real archive that matters to a pipeline: the 17 tags visible in the pixels, the 4-component JPEGs that
decoders get wrong, and a few odd and broken files.

`archive` writes it into a `folder`: of the `tags` that stand together a `chip` is drawn on a `scene`, first
`scenery`, then the `features` of `nature` and `people`, all with one `brush`; `encode` makes a JPEG of it.
"""

from canopy.sample.archive import SampleSettings, SampleSummary, write_archive

__all__ = ["SampleSettings", "SampleSummary", "write_archive"]
