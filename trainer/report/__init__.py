"""The report: what is computed about a scored split, what is concluded from it, and the page that says so.

`split` reads and scores, `statistics` and `duplicates` compute, `model_checks` and `data_checks` conclude,
`plots`, `pictures` and `page` draw. Everything but `split` and `training` is a pure function over arrays.
"""
