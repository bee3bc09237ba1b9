"""Bugs to plant in the second part of the gallery: one piece of a backward pass replaced once.

BUGS[what is wrong] = (twin, function, the right code, the wrong code, the first wrong quantity)
"""

from torch_ref import Twin
from torch_ref.gallery.activations import gelu_twin, swiglu_twin
from torch_ref.gallery.attention import attention_twin, rope_twin
from torch_ref.gallery.convolution import conv1d_twin, max_pool_twin
from torch_ref.gallery.dropout import dropout_twin
from torch_ref.gallery.embedding import embedding_twin, tied_embedding_twin
from torch_ref.gallery.recurrent import gru_twin, lstm_twin, rnn_twin

BUGS: dict[str, tuple[Twin, str, str, str, str]] = {
    # attention
    "attention: scale forgotten in the scores' recomputation": (
        attention_twin, "attention_backward",
        "q @ k.mT * scale", "q @ k.mT", "v"),
    "attention: mask forgotten in the recomputation": (
        attention_twin, "attention_backward",
        "scores.masked_fill(~mask, -math.inf)", "scores", "v"),
    "attention: mask the wrong way round": (
        attention_twin, "attention_backward", "masked_fill(~mask, -", "masked_fill(mask, -", "v"),
    "attention: dL/dv keeps one head of the group instead of their sum": (
        attention_twin, "attention_backward",
        "(weights.mT @ dy).sum(1)", "(weights.mT @ dy)[:, -1]", "v"),
    "attention: dL/dv as the mean over the group": (
        attention_twin, "attention_backward",
        "(weights.mT @ dy).sum(1)", "(weights.mT @ dy).mean(1)", "v"),
    "attention: softmax derivative without the row sum": (
        attention_twin, "attention_backward", "(dweights - row)", "dweights", "scores"),
    "attention: softmax derivative of one element, as if the others stood still": (
        attention_twin, "attention_backward",
        "weights * (dweights - row)", "weights * (1 - weights) * dweights", "scores"),
    "attention: row sum over the queries instead of the keys": (
        attention_twin, "attention_backward",
        "(weights * dweights).sum(-1, keepdim=True)",
        "(weights * dweights).sum(-2, keepdim=True)", "scores"),
    "attention: row sum without the weights": (
        attention_twin, "attention_backward",
        "(weights * dweights).sum", "dweights.sum", "scores"),
    "attention: scale forgotten in dL/dq": (
        attention_twin, "attention_backward", "dproducts @ k", "dscores @ k", "q"),
    "attention: scale squared in dL/dk": (
        attention_twin, "attention_backward",
        "(dproducts.mT @ q)", "(dproducts.mT @ q * scale)", "k"),
    "attention: dL/dk overwritten by the group's last head": (
        attention_twin, "attention_backward",
        "(dproducts.mT @ q).sum(1)", "(dproducts.mT @ q)[:, -1]", "k"),
    # rotary position embedding
    "RoPE: turned forward instead of back": (
        rope_twin, "rope_backward",
        "dy1 * cos[:, None] + dy2 * sin[:, None]", "dy1 * cos[:, None] - dy2 * sin[:, None]", "x"),
    "RoPE: sign of the second half": (
        rope_twin, "rope_backward", "- dy1 * sin[:, None]", "+ dy1 * sin[:, None]", "x"),
    "RoPE: neighbours paired instead of halves": (
        rope_twin, "rope_backward",
        "torch.cat((dx1, dx2), dim=-1)", "torch.stack((dx1, dx2), dim=-1).flatten(-2)", "x"),
    "RoPE: one head for all of them": (
        rope_twin, "rope_backward",
        "(dy1 * x1 + dy2 * x2).sum(1)", "(dy1 * x1 + dy2 * x2)[:, 0]", "cos"),
    "RoPE: the sine's derivative without the first half": (
        rope_twin, "rope_backward",
        "(dy2 * x1 - dy1 * x2).sum(1)", "(dy2 * x1).sum(1)", "sin"),
    "RoPE: derivative of the cosine without its sign": (
        rope_twin, "rope_backward", "- dcos * sin", "+ dcos * sin", "angle"),
    "RoPE: position left out of dL/dfrequency": (
        rope_twin, "rope_backward", "(dangle * position[:, None])", "dangle", "frequency"),
    # SwiGLU
    "SwiGLU: sigmoid' for silu'": (
        swiglu_twin, "swiglu_backward",
        "sigma * (1 + gate * torch.sigmoid(-gate))", "sigma * torch.sigmoid(-gate)", "gate"),
    "SwiGLU: silu' without its second term": (
        swiglu_twin, "swiglu_backward",
        "sigma * (1 + gate * torch.sigmoid(-gate))", "sigma", "gate"),
    "SwiGLU: silu' of the post-activation": (
        swiglu_twin, "swiglu_backward",
        "sigma * (1 + gate * torch.sigmoid(-gate))",
        "torch.sigmoid(silu) * (1 + silu * torch.sigmoid(-silu))", "gate"),
    "SwiGLU: gate for silu(gate)": (
        swiglu_twin, "swiglu_backward", "dhidden * silu", "dhidden * gate", "up"),
    "SwiGLU: the factor up left out of dL/dgate": (
        swiglu_twin, "swiglu_backward", "dsilu = dhidden * up", "dsilu = dhidden", "silu"),
    "SwiGLU: dL/dw_down without the gate": (
        swiglu_twin, "swiglu_backward", "(silu * up).mT @ dy", "up.mT @ dy", "w_down"),
    "SwiGLU: only the path through the gate": (
        swiglu_twin, "swiglu_backward",
        "dup @ w_up.mT + dgate @ w_gate.mT", "dgate @ w_gate.mT", "x"),
    # GELU by tanh
    "GELU: x as a factor forgotten": (
        gelu_twin, "gelu_backward", "dy * right + dinner * slope", "dinner * slope", "x"),
    "GELU: the way through tanh forgotten": (
        gelu_twin, "gelu_backward", "dy * right + dinner * slope", "dy * right", "x"),
    "GELU: the cube's 3 forgotten": (
        gelu_twin, "gelu_backward", "3 * 0.044715", "0.044715", "x"),
    "GELU: sqrt(2/pi) forgotten in the slope": (
        gelu_twin, "gelu_backward",
        "slope = math.sqrt(2 / math.pi) * (1", "slope = (1", "x"),
    "GELU: the half forgotten": (
        gelu_twin, "gelu_backward", "dy * 0.5 * x", "dy * x", "tanh"),
    "GELU: sigmoid' for tanh'": (
        gelu_twin, "gelu_backward", "(4 * right * left)", "(right * left)", "inner"),
    "GELU: 1 - tanh for 1 - tanh^2": (
        gelu_twin, "gelu_backward", "(4 * right * left)", "(2 * left)", "inner"),
    # LSTM cell
    "LSTM: the next step's dL/dc dropped": (
        lstm_twin, "lstm_backward",
        'values["upstream_c"] + dh_new * o', "dh_new * o", "c_new"),
    "LSTM: output gate forgotten on the way to the cell": (
        lstm_twin, "lstm_backward",
        "dh_new * o * tanh_derivative", "dh_new * tanh_derivative", "c_new"),
    "LSTM: tanh' of the post-activation": (
        lstm_twin, "lstm_backward",
        "tanh_derivative(c_new)", "tanh_derivative(c_new.tanh())", "c_new"),
    "LSTM: the old cell for the new one at the output gate": (
        lstm_twin, "lstm_backward", "do = dh_new * c_new.tanh()", "do = dh_new * c.tanh()", "o"),
    "LSTM: the old cell for the candidate at the input gate": (
        lstm_twin, "lstm_backward", "di = dc_new * g", "di = dc_new * c", "i"),
    "LSTM: the new cell for the old one at the forget gate": (
        lstm_twin, "lstm_backward", "df = dc_new * c ", "df = dc_new * c_new ", "f"),
    "LSTM: forget gate left out of the way back": (
        lstm_twin, "lstm_backward", "dc = dc_new * f", "dc = dc_new", "c"),
    "LSTM: sigmoid' for tanh' at the candidate": (
        lstm_twin, "lstm_backward",
        "dg * tanh_derivative(z_g)", "dg * sigmoid_derivative(z_g)", "z_g"),
    "LSTM: sigmoid' of the post-activation": (
        lstm_twin, "lstm_backward",
        "do * sigmoid_derivative(z_o)", "do * sigmoid_derivative(o)", "z_o"),
    "LSTM: gates stacked in another order": (
        lstm_twin, "lstm_backward", "(dz_i, dz_f, dz_g, dz_o)", "(dz_i, dz_f, dz_o, dz_g)", "z"),
    "LSTM: the cell for the state in the recurrent weights": (
        lstm_twin, "lstm_backward", "dz.mT @ h ", "dz.mT @ c ", "w_h"),
    # GRU cell
    "GRU: update gate the wrong way round": (
        gru_twin, "gru_backward", "dh_new * (h - n)", "dh_new * (n - h)", "z"),
    "GRU: z for 1 - z": (
        gru_twin, "gru_backward", "dn = dh_new * torch.sigmoid(-a_z)", "dn = dh_new * z", "n"),
    "GRU: tanh' of the post-activation": (
        gru_twin, "gru_backward", "tanh_derivative(a_n)", "tanh_derivative(n)", "a_n"),
    "GRU: tanh' forgotten": (
        gru_twin, "gru_backward", "da_n = dn * tanh_derivative(a_n)", "da_n = dn", "a_n"),
    "GRU: the old state for its share at the reset gate": (
        gru_twin, "gru_backward", "dr = da_n * h_n", "dr = da_n * h", "r"),
    "GRU: sigmoid' of the post-activation": (
        gru_twin, "gru_backward", "sigmoid_derivative(a_z)", "sigmoid_derivative(z)", "a_z"),
    "GRU: reset gate forgotten towards h": (
        gru_twin, "gru_backward", "da_n * r)", "da_n)", "from_h"),
    "GRU: the way past the gates forgotten": (
        gru_twin, "gru_backward", "dh_new * z + dfrom_h @ w_h", "dfrom_h @ w_h", "h"),
    "GRU: the way through the gates forgotten": (
        gru_twin, "gru_backward", "dh_new * z + dfrom_h @ w_h", "dh_new * z", "h"),
    "GRU: both biases alike": (
        gru_twin, "gru_backward", "db_h = dfrom_h.sum(0)", "db_h = db_x", "b_h"),
    # three-step RNN
    "RNN: the state's way on to the next step forgotten": (
        rnn_twin, "rnn_backward", "dh2 = dy2 + da3 @ w_h", "dh2 = dy2", "h2"),
    "RNN: the step's own output forgotten": (
        rnn_twin, "rnn_backward", "dh1 = dy1 + da2 @ w_h", "dh1 = da2 @ w_h", "h1"),
    "RNN: recurrent weights transposed": (
        rnn_twin, "rnn_backward", "dy2 + da3 @ w_h ", "dy2 + da3 @ w_h.mT ", "h2"),
    "RNN: tanh' forgotten at one step": (
        rnn_twin, "rnn_backward", "da1 = dh1 * tanh_derivative(a1)", "da1 = dh1", "a1"),
    "RNN: tanh' of the post-activation": (
        rnn_twin, "rnn_backward", "tanh_derivative(a2)", "tanh_derivative(h2)", "a2"),
    "RNN: one step not accumulated in the input weights": (
        rnn_twin, "rnn_backward", "da3.mT @ x3 + da2.mT @ x2", "da3.mT @ x3", "w_x"),
    "RNN: recurrent weights overwritten by the first step": (
        rnn_twin, "rnn_backward",
        "da3.mT @ h2 + da2.mT @ h1 + da1.mT @ h0", "da1.mT @ h0", "w_h"),
    "RNN: states one step late": (
        rnn_twin, "rnn_backward", "da2.mT @ h1", "da2.mT @ h2", "w_h"),
    "RNN: bias as the mean over the batch": (
        rnn_twin, "rnn_backward", "da3.sum(0)", "da3.mean(0)", "b"),
    # embeddings
    "embedding: repeated tokens overwritten": (
        embedding_twin, "embedding_backward", "accumulate=True", "accumulate=False", "table"),
    "embedding: gradient averaged over the batch": (
        embedding_twin, "embedding_backward", ", dy, acc", ", dy / len(dy), acc", "table"),
    "embedding: one token off": (
        embedding_twin, "embedding_backward",
        '(values["tokens"],)', '(values["tokens"] - 1,)', "table"),
    "tied embedding: only the unembedding": (
        tied_embedding_twin, "tied_embedding_backward",
        "dtable_out + dtable_in", "dtable_out", "table"),
    "tied embedding: only the embedding": (
        tied_embedding_twin, "tied_embedding_backward",
        "dtable_out + dtable_in", "dtable_in", "table"),
    "tied embedding: rows of the embedding overwrite those of the unembedding": (
        tied_embedding_twin, "tied_embedding_backward",
        "dtable_out + dtable_in", "dtable_out.index_put((tokens,), dx)", "table"),
    "tied embedding: repeated tokens overwritten": (
        tied_embedding_twin, "tied_embedding_backward",
        "accumulate=True", "accumulate=False", "table"),
    "tied embedding: x for h in the unembedding": (
        tied_embedding_twin, "tied_embedding_backward",
        "dlogits.mT @ h", "dlogits.mT @ x", "table"),
    "tied embedding: w not transposed": (
        tied_embedding_twin, "tied_embedding_backward", "dh @ w.mT", "dh @ w", "x"),
    # conv1d
    "conv1d: padding off by one": (
        conv1d_twin, "conv1d_backward",
        "dpadded[..., PADDING : PADDING + x.shape[-1]]", "dpadded[..., : x.shape[-1]]", "x"),
    "conv1d: padding on one side only": (
        conv1d_twin, "conv1d_backward",
        "nn.functional.pad(x, (PADDING, PADDING))", "nn.functional.pad(x, (0, 2 * PADDING))", "w"),
    "conv1d: overlapping windows overwritten": (
        conv1d_twin, "conv1d_backward", "dpadded.index_add", "dpadded.index_copy", "x"),
    "conv1d: filters flipped": (
        conv1d_twin, "conv1d_backward",
        '"nfl,fck->nclk", dy, w)', '"nfl,fck->nclk", dy, w.flip(-1))', "x"),
    "conv1d: stride 1 in the windows": (
        conv1d_twin, "conv1d_backward",
        "starts[:, None] + taps", "starts[:, None] // 2 + taps", "w"),
    "conv1d: bias as the mean over the batch": (
        conv1d_twin, "conv1d_backward", "dy.sum((0, 2))", "dy.sum(2).mean(0)", "b"),
    # max-pooling
    "max-pooling: all ties get the whole gradient": (
        max_pool_twin, "max_pool_backward",
        "(taps == first)", "(windows == windows.amax(-1, keepdim=True))", "x"),
    "max-pooling: the last of several maxima": (
        max_pool_twin, "max_pool_backward",
        "windows.argmax(-1, keepdim=True)",
        "WINDOW - 1 - windows.flip(-1).argmax(-1, keepdim=True)", "x"),
    "max-pooling: overlapping windows overwritten": (
        max_pool_twin, "max_pool_backward", "dx.index_add", "dx.index_copy", "x"),
    "max-pooling: the largest magnitude": (
        max_pool_twin, "max_pool_backward", "windows.argmax", "windows.abs().argmax", "x"),
    "max-pooling: gradient of average pooling": (
        max_pool_twin, "max_pool_backward", "(taps == first) *", "(taps >= 0) / WINDOW *", "x"),
    # dropout
    "dropout: scale forgotten": (
        dropout_twin, "dropout_backward", "* dy / KEPT", "* dy", "x"),
    "dropout: scaled by the probability to drop": (
        dropout_twin, "dropout_backward", "* dy / KEPT", "* dy / (1 - KEPT)", "x"),
    "dropout: mask forgotten": (
        dropout_twin, "dropout_backward", 'values["mask"] * dy', "dy", "x"),
    "dropout: mask the wrong way round": (
        dropout_twin, "dropout_backward", 'values["mask"] *', '~values["mask"] *', "x"),
    "dropout: mask read off the output, which may be 0 by itself": (
        dropout_twin, "dropout_backward",
        'values["mask"] *', '(values["mask"] & (values["x"] != 0)) *', "x"),
}  # fmt: skip
