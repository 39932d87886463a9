"""The real workload: an application that draws with pandas, plotly and kaleido on CPython 3.9, and its images."""
