"""Images to scores, behind `beam_jobs.predict`.

`engines` computes them, of pictures that `resize` brought to the model's size; `scorer` takes images all the
way with several threads, and `apart` has plain processes do so.
"""
