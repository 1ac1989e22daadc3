"""What wrapped chats save, and what they go on from."""

from __future__ import annotations

import json

import pytest
from autogen_agentchat.teams import RoundRobinGroupChat
from chats import LLAMA, MINI, Bench, chain, texts

pytestmark = pytest.mark.virtual_time


async def test_saved_state_loads_into_another_wrapped_chat(bench: Bench) -> None:
    plan = chain({"solver": MINI, "decider": LLAMA})
    first = bench.wrap(bench.chat(("solver", "decider")), plan)
    await first.run(task=bench.task(0))
    state = await first.save_state()
    second = bench.wrap(bench.chat(("solver", "decider")), plan)
    await second.load_state(state)
    assert texts((await second.run(task=bench.task(1))).messages) == texts(
        (await first.run(task=bench.task(1))).messages
    )
    cut = {key: value for key, value in state.items() if key != "unheard"}
    for wrong in ({"agent_states": {}}, cut, None, "a state"):
        with pytest.raises(ValueError, match="save_state"):
            await second.load_state(wrong)  # type: ignore[arg-type]
    other = bench.wrap(bench.chat(("somebody", "decider")), chain({"decider": MINI}))
    with pytest.raises(ValueError, match="somebody"):
        await other.load_state(state)


async def test_the_state_of_the_chat_itself_goes_on_once_it_is_wrapped(bench: Bench) -> None:
    inner = RoundRobinGroupChat([bench.assistant("inner")], max_turns=1, name="pair")
    names = ("solver", "decider")

    def chat() -> RoundRobinGroupChat:
        return RoundRobinGroupChat([*(bench.assistant(n) for n in names), inner], max_turns=3)

    stock = chat()
    await stock.run(task="The password is swordfish.")
    state = json.loads(json.dumps(await stock.save_state()))
    plan = chain({"solver": MINI, "decider": MINI, "pair": MINI})
    team = bench.wrap(chat(), plan)
    await team.load_state(state)
    saved = (await team.save_state())["agent_states"]
    for name in names:
        assert saved[name] == state["agent_states"][name]["agent_state"]
    # The first speaker has not heard those after it: that waits for it now as it did before.
    await team.run(task=bench.task())
    heard = (await team.save_state())["agent_states"]["solver"]["llm_context"]["messages"]
    sources = [message["source"] for message in heard]
    assert sources[:3] == ["user", "solver", "decider"]
    assert sources[-2:] == ["user", "solver"]
    stock_state = {**state, "agent_states": {"somebody": state["agent_states"]["solver"]}}
    with pytest.raises(ValueError, match="no agents"):
        await team.load_state(stock_state)
