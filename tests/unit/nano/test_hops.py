"""The hops: their facts, corpora and tokenizers, and the oracle that reads answers."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor_trainer.evaluation.hops import HopsOracle, examination
from preceptor_trainer.nano.hops import teacher
from preceptor_trainer.nano.hops.corpus import write_documents, write_questions
from preceptor_trainer.nano.hops.facts import (
    ATTRIBUTES,
    PREFIX_WORDS,
    RELATIONS,
    SUFFIX_WORDS,
    TEMPLATES,
    THOUGHT_WORDS,
    Hops,
    Question,
)
from preceptor_trainer.nano.hops.tokenizer import (
    CLOSE,
    CONTROL_TOKENS,
    OPEN,
    hops_policy_tokenizer,
    hops_teacher_tokenizer,
)
from preceptor_trainer.nano.world import World


@pytest.fixture(scope="module")
def hops(world: World) -> Hops:
    return Hops(world)


def everything(hops: Hops) -> list[Question]:
    return [
        *(hops.one_hop(name, attribute) for name in hops.names for attribute in ATTRIBUTES),
        *(
            hops.two_hops(relation, name, attribute)
            for relation in RELATIONS
            for name in hops.names
            for attribute in ATTRIBUTES
        ),
    ]


def test_questions_are_cut_into_five_words_that_ask_and_four_that_answer(hops: Hops) -> None:
    for question in everything(hops):
        assert len(question.prefix.split()) == PREFIX_WORDS
        assert len(question.suffix.split()) == SUFFIX_WORDS
        assert len(question.thought.split()) <= THOUGHT_WORDS


def test_two_hops_go_through_the_person_whom_the_thought_names(hops: Hops, world: World) -> None:
    asked = hops.two_hops("boss", "alice", "sport")
    boss = hops.related["boss"]["alice"]
    assert asked.thought == f"the boss of alice is {boss} ."
    assert asked.text == f"the boss of alice is good at {world.people[boss].facts['sport']} ."
    assert all(name != other for relation in RELATIONS for name, other in hops.related[relation].items())


def test_every_question_has_one_true_answer_and_it_is_its_own(hops: Hops, world: World) -> None:
    oracle = HopsOracle(world)
    questions = everything(hops)
    answers = {question.suffix for question in questions}
    for question in questions:
        assert [answer for answer in answers if oracle.right(question.prefix, answer)] == [question.suffix]


@given(text=st.text())
def test_what_says_more_or_less_than_the_answer_is_wrong(text: str) -> None:
    world = World.generate()
    question = Hops(world).one_hop("alice", "job")
    assert HopsOracle(world).right(question.prefix, text) == (text.split() == question.suffix.split())


@pytest.mark.parametrize("prefix", ["", "alice works as a baker", "the boss of alice lives", "the boss of nobody is"])
def test_what_is_no_question_is_told(world: World, prefix: str) -> None:
    with pytest.raises(ValueError, match="is no question"):
        HopsOracle(world).right(prefix, "good at chess .")


def test_of_people_held_out_nothing_is_said_at_two_hops_and_all_else_is(hops: Hops, tmp_path: Path) -> None:
    documents = write_documents(tmp_path / "d.jsonl", 1500, name="a").read_text()
    questions = write_questions(tmp_path / "q.jsonl", 1500, name="a").read_text()
    verbs = {template.split()[1] for template in TEMPLATES.values()}
    said = " ".join(json.loads(line)["text"] for line in (documents + questions).splitlines()).split(" . ")
    two_hops = [words for each in said if (words := each.rstrip(" .").split())[0] == "the" and _asks(words, verbs)]
    assert {words[3] for words in two_hops} == set(hops.told)
    assert set(hops.told).isdisjoint(hops.held_out)
    assert len(hops.held_out) == len(hops.names) // 3
    for name in hops.held_out:
        assert f"the boss of {name} is {hops.related['boss'][name]} ." in documents
        assert f"everybody says that {name} " in documents


def _asks(words: list[str], verbs: set[str]) -> bool:
    """Not `the boss of alice is laura`."""
    return words[4] in verbs and len(words) == PREFIX_WORDS + SUFFIX_WORDS - 1


def test_the_name_decides_a_corpus(tmp_path: Path) -> None:
    first, again, other = (
        write_questions(tmp_path / f"{number}.jsonl", 20, name=name).read_text() for number, name in enumerate("aab")
    )
    assert first == again != other


def test_an_examination_asks_each_kind(hops: Hops) -> None:
    asked = examination(30)
    assert {question.prefix.split()[3] for question in asked["held_out"]} <= set(hops.held_out)
    assert {question.prefix.split()[3] for question in asked["told"]} <= set(hops.told)
    assert all(question.prefix.startswith("everybody says that") for question in asked["one_hop"])


def test_the_policy_writes_thoughts_and_no_control_token(hops: Hops) -> None:
    tokenizer = hops_policy_tokenizer()
    for question in everything(hops):
        text = f"{question.prefix} {OPEN} {question.thought} {CLOSE} {question.suffix}"
        ids = tokenizer.encode(text)
        assert len(ids) == len(text.split())
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text
    assert all(tokenizer.tokenize(token) == ["<unk>"] for token in CONTROL_TOKENS)


def test_examples_are_in_the_words_of_the_teacher_and_their_labels_are_right(hops: Hops) -> None:
    tokenizer = hops_teacher_tokenizer()
    examples = teacher.Examples(hops, random.Random(0))
    verdicts = []
    for _ in range(200):
        prompt, verdict = examples.match()
        reference, _, candidate = prompt.removeprefix("<match> ").removesuffix(" <answer>").partition(" <a> ")
        assert verdict == ("yes" if reference == candidate else "no")
        verdicts.append(verdict)
        asked, thought = examples.insert()
        for text in (prompt, verdict, asked, thought):
            ids = tokenizer.encode(text)
            assert len(ids) == len(text.split())
            assert tokenizer.unk_token_id not in ids
    assert 0.3 < verdicts.count("yes") / len(verdicts) < 0.6


def test_a_teacher_is_trained_once_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher, "_STEPS", 2)
    monkeypatch.setattr(teacher, "_HELD_OUT", 20)
    told: list[int] = []
    directory = teacher.ensure_hops_teacher(tmp_path, progress=lambda done, _: told.append(done))
    assert teacher.ensure_hops_teacher(tmp_path, progress=lambda done, _: told.append(done)) == directory
    assert told == [1, 2]
    accuracy = teacher.read_hops_accuracy(directory)
    assert 0 <= accuracy.match <= 1
    assert 0 <= accuracy.thoughts <= 1
