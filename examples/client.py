"""Talk to a server: an answer and what it cost, a stream that shows the thinking, votes, and state on the server.

ponder serve                                            # in another terminal
python examples/client.py http://localhost:8000/v1      # needs `pip install openai`
"""

from __future__ import annotations

import sys

from openai import OpenAI


def main(url: str) -> None:
    with OpenAI(base_url=url, api_key="none") as client:
        asked = [{"role": "user", "content": "What is 47 * 85?"}]
        answer = client.chat.completions.create(model="mini", messages=asked, reasoning_effort="high")
        thought = answer.usage.completion_tokens_details.reasoning_tokens
        print(f"{answer.choices[0].message.content}   ({thought} of {answer.usage.completion_tokens} tokens thinking)")

        shown = {"reasoning_format": "reasoning", "thinking_token_budget": 300}
        for chunk in client.chat.completions.create(model="mini", messages=asked, stream=True, extra_body=shown):
            for choice in chunk.choices:
                delta = choice.delta
                print((delta.model_extra or {}).get("reasoning") or delta.content or "", end="", flush=True)
        print()

        by_votes = {"strategy": "consensus(samples=4)"}  # `ponder serve careful='mini:consensus(samples=4)'` names it
        voted = client.chat.completions.create(model="mini", messages=asked, extra_body=by_votes)
        print(f"{voted.choices[0].message.content}   ({voted.usage.completion_tokens} tokens for four answers)")

        first = client.responses.create(model="mini", input="What is 12 * 34?")
        second = client.responses.create(model="mini", input="What is 56 * 78?", previous_response_id=first.id)
        print(first.output_text, second.output_text)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8000/v1")
