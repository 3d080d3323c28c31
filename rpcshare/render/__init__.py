"""Shares as HTML, without the web: from a transcript to text that is safe to show.

A session's content is hostile, and may have any shape. :mod:`~rpcshare.render.lenient_json` reads it; views,
which are plain structs, say what is to be seen; templates print views and decide nothing. Every string
gets into a page escaped, or through :mod:`~rpcshare.render.markdown` and
:mod:`~rpcshare.render.highlighting`.
"""
