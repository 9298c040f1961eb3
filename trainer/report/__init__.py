"""The report: what is computed about a scored split, what is concluded from it, and the page that says so.

`split` reads and scores, and `training` reads what the run wrote down. `statistics`, `looks` and `duplicates`
compute; `model_checks` and `data_checks` conclude, each a `check`, and are `all_checks` together. `findings`
puts everything together for `page`, which `plots` and `pictures` draw for. Everything but `split`, `training`
and `findings` is a pure function over arrays.
"""
