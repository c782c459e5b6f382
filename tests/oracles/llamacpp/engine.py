"""llama.cpp through cffi: what it reads of a GGUF file, tokens of texts, logits and losses.

Run in .venv-llamacpp.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from llama_cpp_py_sync._cffi_bindings import get_ffi


class Engine:
    """One GGUF file in llama.cpp, on one thread and the CPU.

    Args:
        path: the file.
        vocabulary: read the vocabulary alone, no weights.
        context: positions at most.
        exact: attention in float32; llama.cpp's default keeps keys and values in float16.
        adapter: a LoRA adapter that is applied.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        vocabulary: bool = False,
        context: int = 1024,
        exact: bool = False,
        adapter: str | None = None,
    ) -> None:
        self.ffi = get_ffi()
        found = find_spec("xllamacpp")
        assert found is not None and found.submodule_search_locations is not None
        self.lib: Any = self.ffi.dlopen(str(next(Path(found.submodule_search_locations[0]).glob("xllamacpp*.so"))))
        self._quiet = self.ffi.callback("void(enum ggml_log_level, const char *, void *)", lambda *said: None)
        self.lib.llama_log_set(self._quiet, self.ffi.NULL)
        self.lib.llama_backend_init()
        settings = self.lib.llama_model_default_params()
        settings.vocab_only, settings.n_gpu_layers = vocabulary, 0
        self.model = self.lib.llama_model_load_from_file(str(path).encode(), settings)
        if self.model == self.ffi.NULL:
            raise ValueError(f"llama.cpp refuses {path}")
        self.vocab = self.lib.llama_model_get_vocab(self.model)
        self.size = self.lib.llama_vocab_n_tokens(self.vocab)
        self.context, self.exact = context, exact
        self.adapter = self.ffi.NULL
        if adapter is not None:
            self.adapter = self.lib.llama_adapter_lora_init(self.model, adapter.encode())
            if self.adapter == self.ffi.NULL:
                raise ValueError(f"llama.cpp refuses {adapter}")

    def tokens(self, text: str, *, special: bool = True, parse: bool = True) -> list[int]:
        """Token ids of a text.

        Args:
            special: what the file asks to stand in front and behind is added.
            parse: special tokens written out in the text become tokens.
        """
        raw = text.encode()
        room = len(raw) + 8
        out = self.ffi.new("llama_token[]", room)
        count = self.lib.llama_tokenize(self.vocab, raw, len(raw), out, room, special, parse)
        assert count >= 0, count
        return list(out[0:count])

    def text(self, tokens: list[int], *, special: bool = True) -> str:
        """The text of tokens."""
        given, room = self.ffi.new("llama_token[]", tokens), 64 * len(tokens) + 64
        out = self.ffi.new("char[]", room)
        count = self.lib.llama_detokenize(self.vocab, given, len(tokens), out, room, False, special)
        assert count >= 0, count
        return bytes(self.ffi.buffer(out, count)).decode(errors="replace")

    def flags(self) -> dict[str, Any]:
        """What the vocabulary asks for: the kind, the tokens that frame a text, and those that end a generation."""
        vocab, lib = self.vocab, self.lib
        return {
            "bos": lib.llama_vocab_bos(vocab),
            "eos": lib.llama_vocab_eos(vocab),
            "eot": lib.llama_vocab_eot(vocab),
            "add_bos": bool(lib.llama_vocab_get_add_bos(vocab)),
            "add_eos": bool(lib.llama_vocab_get_add_eos(vocab)),
            "ends": [token for token in range(self.size) if lib.llama_vocab_is_eog(vocab, token)],
        }

    def logits(self, ids: list[int], *, threads: int = 1) -> np.ndarray:
        """Logits after every token, float32 [tokens, vocabulary]."""
        return self._computed(ids, threads, self.size, states=False)

    def states(self, ids: list[int], *, threads: int = 1) -> np.ndarray:
        """The last hidden state of every token, float32 [tokens, width]: what an encoder without a head computes."""
        return self._computed(ids, threads, self.lib.llama_model_n_embd(self.model), states=True)

    def _computed(self, ids: list[int], threads: int, width: int, *, states: bool) -> np.ndarray:
        settings = self.lib.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = max(self.context, len(ids))
        settings.n_threads = settings.n_threads_batch = threads
        if states:
            settings.embeddings, settings.pooling_type = True, self.lib.LLAMA_POOLING_TYPE_NONE
        if self.exact:
            settings.type_k = settings.type_v = self.lib.GGML_TYPE_F32
            settings.flash_attn_type = self.lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        context = self.lib.llama_init_from_model(self.model, settings)
        assert context != self.ffi.NULL
        if self.adapter != self.ffi.NULL:
            given, scale = self.ffi.new("struct llama_adapter_lora *[]", [self.adapter]), self.ffi.new("float[]", [1.0])
            assert self.lib.llama_set_adapters_lora(context, given, 1, scale) == 0
        batch = self.lib.llama_batch_init(len(ids), 0, 1)
        try:
            batch.n_tokens = len(ids)
            for place, token in enumerate(ids):
                batch.token[place], batch.pos[place] = token, place
                batch.n_seq_id[place], batch.seq_id[place][0], batch.logits[place] = 1, 0, 1
            assert self.lib.llama_decode(context, batch) == 0
            found = (self.lib.llama_get_embeddings if states else self.lib.llama_get_logits)(context)
            raw = self.ffi.buffer(found, 4 * len(ids) * width)
            return np.frombuffer(raw, dtype=np.float32).reshape(len(ids), width).copy()
        finally:
            self.lib.llama_batch_free(batch)
            self.lib.llama_free(context)

    def loss(self, ids: list[int]) -> float:
        """Mean negative log-likelihood of every token but the first, in nats."""
        scores = self.logits(ids)[:-1].astype(np.float64)
        highest = scores.max(axis=1)
        total = highest + np.log(np.exp(scores - highest[:, None]).sum(axis=1))
        return float((total - scores[np.arange(len(scores)), ids[1:]]).mean())
