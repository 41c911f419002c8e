"""Interactive pictures: a folder each, with `view.html`, `view.css`, `view.js` and Python to mount them."""
