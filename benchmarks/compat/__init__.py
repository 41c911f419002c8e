"""Tools from PyPI that were written for HookedTransformer, on tiny models of ours after `lens.compat.install()`.

Their pins exclude each other's versions of TransformerLens, so each gets an environment of its own beside this project:

    python -m venv sae && sae/bin/pip install -c constraints.txt .
    sae/bin/pip install --no-deps sae-lens==6.54.12
    sae/bin/pip install -c constraints.txt "babe<0.0.8" simple-parsing tenacity python-dotenv nltk datasets \\
        plotly-express
    sae/bin/python benchmarks/compat/sae_training.py > benchmarks/compat/results/sae_training.json

    python -m venv auto && auto/bin/pip install -c constraints.txt .
    auto/bin/pip install --no-deps auto-circuit==1.0.1
    auto/bin/pip install -c constraints.txt blobfile ordered-set vscode-tqdm word2word tracr-pypi
    auto/bin/python benchmarks/compat/circuit_edges.py > benchmarks/compat/results/circuit_edges.json

pip then says that they ask for other versions (transformer-lens, kaleido): that is what `--no-deps` is for.
`results/` holds what they said. Standard output is JSON; the tools' own lines go to standard error.
"""
