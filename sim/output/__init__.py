"""Results in a form for people and tools: tables, files, pictures and Perfetto traces.

The results of finished runs come in; nothing here changes a number.
Text for a terminal, and CSV, Parquet, JSON, PNG and SVG files, go out.
"""
