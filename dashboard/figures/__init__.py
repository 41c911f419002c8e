"""Data to figures, with no Streamlit in it: every function here is pure."""
