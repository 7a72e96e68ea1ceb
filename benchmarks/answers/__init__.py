"""Whether what a user asks is answered rightly, whole and at once: `python -m benchmarks.answers`.

`questions.py` is the format of a question with its right answer (docs/answers.md), `asking.py` puts it as a user would,
`judging.py` compares, `contradictions.py` looks for an answer that denies itself, `names.py` asks for cards and models by name,
`refusals.py` times what is refused. Right values come from measurements,
published facts or arithmetic, never from this program.
"""
