"""The report: what is computed about a scored split, what is concluded from it, and the page that says so.

`split` reads and scores, `statistics` and `duplicates` compute, `model_checks` and `data_checks` conclude,
`findings` puts it all together, `plots`, `pictures` and `page` draw. Everything but `split`, `training` and
`findings` is a pure function over arrays.
"""
