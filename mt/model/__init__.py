"""The Transformer, readable beside section 3 of "Attention Is All You Need".

Shape suffixes: B batch, S source length, T target length, D d_model, H heads, K d_k = d_model / heads,
F d_ff, V vocabulary, W beam width, N flat rows.
"""
