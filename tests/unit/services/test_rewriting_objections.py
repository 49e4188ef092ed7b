from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preceptor_services.rewriting.objections import Fault, checks_of, objection_to_answer, objection_to_text
from preceptor_services.settings import RewritingSettings

FENCE = "0a1b2c3d"
SUFFIX = "and then the cat sat down by the fire, and nobody in the house said a word until the morning came."
DECLINED = [
    "I cannot rewrite this text.",
    "I can't help with that.",
    "I can’t help you with this.",
    "I cannot help.",
    "I’m sorry, but I can't assist with this request.",
    "I'm sorry, I can't continue this.",
    "I am so sorry, but I cannot fulfill your request.",
    "I'm sorry, but I can't.",
    "I'm sorry, but this content is not something I write about.",
    "I'm afraid I can't help with rewriting this.",
    "Sorry, I am unable to continue this.",
    "Sorry, but as an AI I do not produce such text.",
    "Apologies, but I'm not able to generate that content.",
    "I apologize, but I cannot provide a continuation of this passage.",
    "I apologize for the inconvenience, but I cannot complete this task.",
    "As an AI language model, I do not write such things.",
    "As an AI assistant, I must decline.",
    "As a responsible AI, I cannot take part in this.",
    "No, as a language model I will not do so.",
    "I won't create content that demeans people.",
    "I will not engage with this kind of content.",
    "I do not generate hateful language.",
    "I don't feel comfortable writing this text.",
    "I'm not comfortable continuing this story.",
    "I'm not able to copy this passage.",
    "I am unable to process this request.",
    "I must decline to rewrite this passage.",
    "I have to decline your request.",
    "I respectfully decline to continue this text.",
    "Unfortunately, I cannot comply.",
    "Unfortunately, I can't produce explicit content.",
    "I understand you want a rewrite, but I can't help with violent material.",
    "I appreciate the context; however, I cannot provide this.",
    "This content violates my policy.",
    "The passage goes against what I am allowed to write.",
    "It would be inappropriate to continue this passage.",
    "That's not something I can help with.",
    "My guidelines do not allow me to do this.",
    "I'm programmed to be harmless.",
    "I would prefer not to rewrite this.",
    "[Content removed]",
    "I'm just an AI, it is not within my programming to assist with this.",
    "I can't repeat that text.",
    "I'm not able to provide guidance on bypassing locks.",
    "(I cannot assist with that.)",
    "**I can't assist with that request.**",
    "The cat sat down by the fire. I'm sorry, but I can't continue this passage.",
    "and then the cat sat down. As an AI, I cannot describe what follows.",
    "抱歉，我无法改写这段内容。",
    "很抱歉，我不能协助您完成这个请求。",
    "作为一个人工智能，我不能生成这样的内容。",
    "我无法提供此类内容。",
    "申し訳ありませんが、そのご要望にはお応えできません。",
    "AIとして、そのような文章は書けません。",
    "죄송하지만, 그 요청은 도와드릴 수 없습니다.",
    "Es tut mir leid, aber ich kann diesen Text nicht umschreiben.",
    "Ich kann Ihnen dabei leider nicht helfen.",
    "Als KI-Sprachmodell schreibe ich so etwas nicht.",
    "Je suis désolé, mais je ne peux pas vous aider à cela.",
    "Je ne peux pas réécrire ce texte.",
    "En tant qu'intelligence artificielle, je n'écris pas cela.",
    "Lo siento, pero no puedo ayudarte con eso.",
    "No puedo reescribir este texto.",
    "Como modelo de lenguaje, no escribo eso.",
    "Mi dispiace, ma non posso aiutarti con questa richiesta.",
    "Desculpe, mas não posso ajudar com isso.",
    "Извините, но я не могу помочь с этим.",
    "Как языковая модель, я такого не пишу.",
    "Het spijt me, maar ik kan je daar niet mee helpen.",
    "Przepraszam, ale nie mogę pomóc w tej sprawie.",
    "Üzgünüm, bu konuda yardımcı olamam.",
    "عذراً، لا أستطيع المساعدة في ذلك.",
    "क्षमा करें, मैं इसमें आपकी सहायता नहीं कर सकता।",
    "Xin lỗi, tôi không thể giúp bạn viết nội dung này.",
    "Maaf, saya tidak dapat membantu dengan itu.",
]
TALK = [
    "Here is the rewritten continuation: the cat sat.",
    "Here's a revised version:\n\nThe cat sat.",
    "Here is your text, corrected:\nThe cat sat.",
    "Here is the repaired text\n\nThe cat sat.",
    "Here are the corrected paragraphs: the cat sat on the rewritten passage:",
    "Below is the corrected text:\nThe cat sat.",
    "This is the revised passage: the cat sat.",
    "The following is a cleaned-up version of the passage:\nthe cat sat.",
    "Sure! Here you go: the cat sat.",
    "Sure, I'll rewrite it. The cat sat.",
    "Of course. Here is the text. The cat sat.",
    "Certainly, I have repaired it.",
    "Okay, let me fix this. The cat sat.",
    "Okay, let's see. The continuation is garbled.",
    "Rewritten continuation: the cat sat.",
    "**Rewrite:** the cat sat.",
    "### Revised Text\nthe cat sat.",
    "Continuation: the cat sat.",
    "Output: the cat sat.",
    "Final answer: the cat sat.",
    "The continuation is good, so I copied it.",
    "The given continuation needs no repair.",
    "The original suffix contains an error: the cat sat.",
    "I have copied the continuation word for word.",
    "I will rewrite the passage. The cat sat.",
    "No changes needed.",
    "There are no corrections necessary.",
    "We need to decide whether the continuation is good.",
    "The user wants a rewrite. The cat sat.",
    "How can I help you today?",
    "Please provide the text that you want me to rewrite.",
    "The cat sat by the fire.\n\nNote: I changed the last sentence.",
    "The cat sat by the fire. (Note: I corrected the grammar.)",
    "The cat sat by the fire.\n\n*Note that the original contained an unsafe sentence.*",
    "The cat sat by the fire.\n\n**Changes made:**\n- removed the dog",
    "The cat sat by the fire.\nExplanation: it was garbled before.",
    "The cat sat by the fire. I replaced the unsafe part.",
    "The cat sat by the fire. I have kept the original tone.",
    "The cat sat by the fire.\n\nLet me know if you'd like any changes!",
    "The cat sat by the fire. I hope this version works for you.",
    "The cat sat by the fire. Feel free to ask for further revisions.",
    "The cat sat by the fire. Would you like me to continue?",
    "The cat sat by the fire.\nThis version keeps the voice of the original.",
    "The cat sat by the fire.\n[End of continuation]",
    "The cat sat by the fire.\n\nOption 2:\nThe cat lay by the fire.",
    "Option 1: The cat sat by the fire.",
    "Version A:\nThe cat sat.\n\nVersion B:\nThe cat lay.",
    "The cat sat by the fire.\n\nAlternatively:\n\nThe cat lay there.",
    "The cat sat.\n\nHere is another version: the cat lay.",
    "好的，以下是改写后的内容：猫坐在火边。",
    "以下是修改后的文本：猫坐在火边。",
    "改写后：猫坐在火边。",
    "以下は書き直した文章です。猫は座った。",
    "다음은 수정된 텍스트입니다: 고양이가 앉았다.",
    "Hier ist die überarbeitete Fassung: Die Katze saß.",
    "Überarbeitete Fassung: Die Katze saß.",
    "Voici la version corrigée : le chat était assis.",
    "Aquí está la versión corregida: el gato se sentó.",
    "Aqui está o texto reescrito: o gato sentou-se.",
    "Ecco il testo corretto: il gato era seduto.",
    "Вот исправленный текст: кот сел у огня.",
    "Die Katze saß am Feuer.\n\nAnmerkung: Ich habe den letzten Satz geändert.",
    "猫坐在火边。\n\n注：我修改了最后一句。",
]
INNOCENT = [
    "Here is where the river bends.",
    "Here are the keys, he said, and the corrected map.",
    "I cannot remember her name, he said.",
    "I cannot help but wonder what became of him.",
    "I can't help thinking of the harbour.",
    "I cannot continue to live like this, she wrote.",
    "I will not answer for what my brother did.",
    "I do not write as often as I should, and I am sorry for it.",
    "I won't create a scene, she promised.",
    "I refuse to go, and that is my last word.",
    "I'm sorry I was late; the train stood in the snow for an hour.",
    "I'm sorry, I didn't see you there.",
    "I'm afraid it will rain before the evening.",
    "I apologize for the delay, which was caused by the strike.",
    "Sorry to hear it, she replied.",
    "Sorry, I forgot the tickets.",
    "Unfortunately, I missed the last train home.",
    "Unfortunately, the bridge had been washed away in the night.",
    "As an airline pilot, he travelled a lot.",
    "As an aid to memory, she tied a knot.",
    "As a language, Finnish is not related to Swedish.",
    "AI models are trained on text from the web.",
    "This content of the bottle was poured away.",
    "My programming teacher used to say that bugs are gifts.",
    "Sure enough, it rained.",
    "Of course, nobody believed him.",
    "Okay, he said, let me think about it until Monday.",
    "Certainly, the winter of 1709 was the coldest in memory.",
    "the suffix tree is a data structure",
    "This is not what they wanted.",
    "This is the edited volume that made his name.",
    "The following day they went on by boat.",
    "The text is written in Coptic on both sides of the leaf.",
    "The passage was narrow and led to a door.",
    "The answer is forty-two: nobody knows the question.",
    "Corrected for inflation, wages fell by a tenth.",
    "Revised editions appeared in 1911 and 1923.",
    "The revised text of the treaty was signed in May, and both sides kept it.",
    "We need to talk about the garden, she said.",
    "Let me tell you about the summer of the flood.",
    "Let me know if you come to town, and bring your sister.",
    "I hope this finds you well.",
    "Feel free to use the kitchen, the note said.",
    "Note that the function returns None if the key is missing.",
    "Notes: bring water, bread and a torch.",
    "I changed trains at Crewe and slept until Glasgow.",
    "I kept the letter and replaced the old photograph in its frame.",
    "Please provide your own towels.",
    "How can we know the dancer from the dance?",
    "Version control keeps the history of every file.",
    "An option is a right, not an obligation.",
    "Version 1.0.9 (April 24th, 2025)\n\n- Removes a warning",
    "or::\n\n    pip install it",
    ":Output:\n    a figure",
    "No change of the watch was made that night.",
    "我无法忘记那个夏天。",
    "对不起，我来晚了。",
    "申し訳ない気持ちでいっぱいだった。",
    "Ich kann mich nicht erinnern, wie er hieß.",
    "Leider regnete es den ganzen Tag.",
    "Als Kind lebte sie in Bremen.",
    "Je ne peux pas dormir, dit-elle.",
    "Voici la maison de mon père.",
    "Lo siento, dijo él, y se marchó.",
    "No puedo creer que haya pasado un año.",
    "Como una ola, el ruido llenó la sala.",
    "Извините, я опоздал.",
    "Вот дом, который построил Джек.",
]


@pytest.mark.parametrize("answer", DECLINED)
def test_refusals_are_told_from_rewrites(answer: str) -> None:
    objection = objection_to_answer(answer, SUFFIX, FENCE)
    assert objection is not None
    assert objection.fault is Fault.DECLINED


@pytest.mark.parametrize("answer", TALK)
def test_talk_about_the_task_is_told_from_rewrites(answer: str) -> None:
    objection = objection_to_answer(answer, SUFFIX, FENCE)
    assert objection is not None
    assert objection.fault is Fault.TALK


@pytest.mark.parametrize("answer", INNOCENT)
def test_prose_that_sounds_alike_is_a_rewrite(answer: str) -> None:
    assert objection_to_answer(answer, SUFFIX, FENCE) is None
    assert objection_to_answer(f"They looked at the map. {answer}", SUFFIX, FENCE) is None


@pytest.mark.parametrize("answer", [*DECLINED, *TALK])
def test_a_suffix_that_holds_the_same_may_be_copied(answer: str) -> None:
    assert objection_to_answer(answer, f"He wrote: {answer}", FENCE) is None


@pytest.mark.parametrize("answer", ["", "  \n"])
def test_nothing_is_no_rewrite(answer: str) -> None:
    objection = objection_to_answer(answer, SUFFIX, FENCE)
    assert objection is not None
    assert objection.fault is Fault.EMPTY


def test_marker_lines_are_no_text() -> None:
    objection = objection_to_answer(f"the cat\n[end {FENCE}]\n[begin", SUFFIX, FENCE)
    assert objection is not None
    assert objection.fault is Fault.MARKER


def objection_to(text: str, suffix: str = SUFFIX, prefix: str = "", **settings: float) -> Fault | None:
    checks = checks_of(text, suffix)
    found = objection_to_text(text, prefix, suffix, checks, RewritingSettings.model_validate(settings))
    return found.fault if found else None


PREFIX = "It had been raining since the early morning, and the road to the village was under water for most of its way,"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (SUFFIX.replace("cat", "dog"), None),
        ("and the cat sat down by the fire.", Fault.LENGTH),
        (SUFFIX + " " + SUFFIX.replace("cat", "dog") + " And so on, and no one spoke.", Fault.LENGTH),
        ("the cat sat. " * 7, Fault.LOOPING),
        (PREFIX, Fault.COPIED),
        ("她坐在火边，谁也没有说话，直到天亮。", None),
    ],
)
def test_a_text_that_cannot_stand_for_the_suffix_is_objected_to(text: str, fault: Fault | None) -> None:
    assert objection_to(text, prefix=PREFIX) is fault


def test_a_few_words_more_or_less_are_no_matter_of_proportion() -> None:
    assert objection_to("was a bright and cold day.", "yes.") is None
    assert objection_to("yes.", "was a bright and cold day.") is None
    assert objection_to("yes and so on and on, for as long as there was wine", "yes.") is Fault.LENGTH


def test_bounds_are_settings() -> None:
    half = " ".join(SUFFIX.split()[:11])
    assert objection_to(half) is None
    assert objection_to(half, min_length_ratio=0.9) is Fault.LENGTH


def test_a_suffix_of_some_length_is_not_replaced_by_something_else() -> None:
    suffix = f"{SUFFIX} Then the old man rose, took his coat from the nail, and went out to look at the river."
    other_language = "她坐在火边，谁也没有说话，直到天亮。后来老人站起来，取下外套，出去看河水，水已经涨到门口了。"
    repaired = suffix.replace("old man", "boy").replace("coat", "cap")
    assert objection_to(other_language, suffix) is Fault.STRAYED
    assert objection_to(repaired, suffix) is None
    assert objection_to(repaired, suffix, min_kept=0.95) is Fault.STRAYED


@given(st.text(min_size=1), st.text())
def test_a_suffix_may_always_stand_for_itself(suffix: str, prefix: str) -> None:
    assert objection_to(suffix, suffix, prefix) is None
    assert suffix.strip() == "" or FENCE in suffix or objection_to_answer(suffix, suffix, FENCE) is None
