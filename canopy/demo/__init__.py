"""The demo: every stage of Canopy, one command after the other, on the sample archive or on your own.

It only calls the commands that users call, prints each as it could be typed, and reads what they wrote:
of an archive in the `layout` that it expects to a `table` of what came of it.
"""
