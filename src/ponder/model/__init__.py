"""One readable transformer for the Llama, Qwen2 and Qwen3 families, its checkpoints and its adapters.

Import from the modules: `config` (ModelConfig), `transformer` (Transformer), `checkpoint` (load_model, save_model),
`loss` (next_token_loss), `lora` (add_lora, merge_lora, …).
"""
