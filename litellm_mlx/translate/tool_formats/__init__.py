"""How model families write tool calls: one small module per kind of syntax.

A `Form` gives the grammar of calls and reads them back. `json_form` is for calls whose arguments
are one JSON object, `markup_form` for one tag or keyword per argument, `gemma_form` for Gemma's
own notation; `families` is the table of all, and how a model's is found.
"""
