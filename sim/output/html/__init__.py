"""Building blocks of a report: a page, charts that one can zoom, tables to sort and filter.

Numbers and texts of a finished result come in; they know nothing of where these are from.
One HTML file that needs no network goes out. Every text is escaped on its way into the page.
"""
