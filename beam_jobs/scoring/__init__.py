"""Images to scores, behind `beam_jobs.predict`.

A `worklist` is what a worker gets, and what comes of it; `scorer` takes its images all the way to scores with
several threads, `apart` has plain processes do so, and `fed` has them make pictures for one engine; `engines`
compute, of `pictures` that `resize` brought to the model's size.
"""
