"""Browse heads, attention patterns and circuits in a browser: the workbench's Streamlit dashboard."""
