"""The command line: `pepperpy-network`, or `python -m pepperpy.network`. docs/command-line.md shows it.

main.py          arguments, and which exit code an error has
terminal.py      what is written: raw into a pipe, escaped on a terminal; the progress bar
doctor.py        doctor: what is installed, what is missing, what is slow
demo.py          demo: the client at work, beside a server of its own
bench.py         bench: this package beside asyncio's streams and aiohttp, in fresh processes
  bench_work.py  what those processes do
get.py           get: one HTTP request, or a download
pipe.py          tcp: standard input and output over one connection
"""
