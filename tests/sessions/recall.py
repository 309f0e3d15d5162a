"""The recall set: facts that people tell early in a long chat and ask for late, in five languages.

Owns the conversations and the measure. Each fact is told once among small talk that has figures, names and questions of its own;
`recall` says how many of them stand in what the model sees after the whole conversation went through the summaries. A second set,
that nothing was tuned on, is `recall_held_out.py`. `python -m tests.sessions.recall` prints the table.
"""

import asyncio
import logging
import random
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from bot.summarising import Summariser
from config.settings import Settings
from sessions import context, lane, lifecycle
from sessions.database.base import Transaction
from sessions.database.sqlite import SqliteDatabase
from sessions.scope import OperatorScope
from tests.sessions.records import NOW, arrive, incoming


@dataclass(frozen=True)
class Fact:
    told: str
    key: str
    """What must still be there to answer the question."""


@dataclass(frozen=True)
class Chat:
    """One language: facts, and small talk as pairs of what the person and the bot say."""

    facts: Sequence[Fact]
    """With something about them that marks them: a name, a figure, `my`, `remember`."""
    plain: Sequence[Fact]
    """Told as in passing, with nothing that tells them from small talk."""
    talk: Sequence[tuple[str, str]]


CHATS: Final[Mapping[str, Chat]] = {
    "en": Chat(
        (
            Fact("By the way, my name is Morwenna.", "Morwenna"),
            Fact("I am allergic to cashews, so never put them in a recipe.", "cashew"),
            Fact("My daughter's birthday is on 14 March.", "14 March"),
            Fact("We decided to take the train to Ghent and not the car.", "Ghent"),
            Fact("The code for the garden gate is 7741.", "7741"),
            Fact("I live in Aldeburgh since last autumn.", "Aldeburgh"),
            Fact("My boss is called Mrs Okonkwo.", "Okonkwo"),
            Fact("Remember that the report is due on 3 December.", "3 December"),
            Fact("I prefer short answers without lists.", "without lists"),
            Fact("The flight is booked under PX4Q9Z.", "PX4Q9Z"),
        ),
        (
            Fact("The spare key hangs behind the boiler.", "boiler"),
            Fact("Tomasz moved out and took the sofa.", "sofa"),
            Fact("Our old tent leaks at the seams.", "tent"),
            Fact("The blue folder is in the attic.", "attic"),
            Fact("Grandpa taught me to whittle spoons.", "whittle"),
        ),
        (
            ("Good morning!", "Good morning! How can I help you today?"),
            (
                "Is it going to rain later?",
                "I cannot see the weather, but October has about 12 rainy days there.",
            ),
            (
                "Tell me something about octopuses.",
                "An octopus has three hearts and eight arms. Two hearts serve the gills. Isn't that nice?",
            ),
            (
                "Ha, great. And how long do they live?",
                "Most live one or two years; the giant Pacific octopus reaches five. Let me know if you want more.",
            ),
            (
                "What could I cook with leftover rice?",
                "Fried rice with egg and peas is quick: 10 minutes. You could also make rice pudding with 500 ml of milk.",
            ),
            ("That sounds good, thanks.", "You're welcome! Enjoy your meal."),
            (
                "I watched a film yesterday, it was a bit boring.",
                "That happens. Was it the pace or the story?",
            ),
            (
                "The pace I think. Two and a half hours is long.",
                "Indeed, many films run over 150 minutes now.",
            ),
            (
                "Can you explain what inflation is?",
                "Inflation means that prices rise on average. Central banks aim for about 2 percent a year. I hope this helps.",
            ),
            ("Okay, I see.", "Is there anything else you would like to know?"),
            (
                "Do you know a word that rhymes with orange?",
                "Hardly any word does; people offer 'sporange', which is a botanical term.",
            ),
            ("Funny. I am a little tired today.", "Then a short walk may help, or a nap of 20 minutes."),
            ("How many kilometres are 26 miles?", "26 miles are about 41.8 kilometres."),
            ("Which planet has the most moons?", "Saturn, with more than 140 known moons, ahead of Jupiter."),
        ),
    ),
    "de": Chat(
        (
            Fact("Übrigens, ich heiße Friedlinde.", "Friedlinde"),
            Fact("Ich bin allergisch gegen Sellerie, also bitte nie in Rezepten.", "Sellerie"),
            Fact("Der Geburtstag meiner Tochter ist am 14. März.", "14. März"),
            Fact("Wir haben beschlossen, mit dem Zug nach Görlitz zu fahren.", "Görlitz"),
            Fact("Der Code für das Gartentor ist 7741.", "7741"),
            Fact("Ich wohne seit letztem Herbst in Husum.", "Husum"),
            Fact("Meine Chefin heißt Frau Brzezinski.", "Brzezinski"),
            Fact("Merk dir bitte: Die Abgabe des Berichts ist am 3. Dezember.", "3. Dezember"),
            Fact("Ich mag keine Aufzählungen, lieber kurze Antworten.", "Aufzählungen"),
            Fact("Der Flug ist unter PX4Q9Z gebucht.", "PX4Q9Z"),
        ),
        (
            Fact("Der Ersatzschlüssel hängt hinter dem Heizkessel.", "Heizkessel"),
            Fact("Tomasz ist ausgezogen und hat das Sofa mitgenommen.", "Sofa"),
            Fact("Unser altes Zelt leckt an den Nähten.", "Zelt"),
            Fact("Der blaue Ordner liegt auf dem Dachboden.", "Dachboden"),
            Fact("Opa hat mir gezeigt, wie man Löffel schnitzt.", "schnitzt"),
        ),
        (
            ("Guten Morgen!", "Guten Morgen! Wie kann ich dir heute helfen?"),
            (
                "Regnet es später noch?",
                "Das Wetter sehe ich nicht, aber im Oktober regnet es dort an etwa 12 Tagen.",
            ),
            (
                "Erzähl mir etwas über Tintenfische.",
                "Ein Krake hat drei Herzen und acht Arme. Zwei Herzen versorgen die Kiemen. Schön, nicht wahr?",
            ),
            (
                "Ha, toll. Und wie alt werden die?",
                "Die meisten ein oder zwei Jahre, der Riesenkrake bis zu fünf. Sag Bescheid, wenn du mehr wissen willst.",
            ),
            (
                "Was kann ich aus Reisresten kochen?",
                "Gebratener Reis mit Ei und Erbsen geht in 10 Minuten. Oder Milchreis mit 500 ml Milch.",
            ),
            ("Klingt gut, danke.", "Gern! Guten Appetit."),
            (
                "Ich habe gestern einen Film gesehen, der war etwas langweilig.",
                "Das kommt vor. Lag es am Tempo oder an der Geschichte?",
            ),
            (
                "Am Tempo, glaube ich. Zweieinhalb Stunden sind lang.",
                "Ja, viele Filme dauern heute über 150 Minuten.",
            ),
            (
                "Kannst du erklären, was Inflation ist?",
                "Inflation heißt, dass die Preise im Mittel steigen. Zentralbanken wollen etwa 2 Prozent. Ich hoffe, das hilft.",
            ),
            ("Ach so.", "Kann ich sonst noch etwas für dich tun?"),
            ("Was reimt sich auf Mensch?", "Fast nichts; im Scherz sagt man 'Wennsch'."),
            (
                "Witzig. Ich bin heute etwas müde.",
                "Dann hilft ein kurzer Spaziergang oder 20 Minuten Schlaf.",
            ),
            ("Wie viele Kilometer sind 26 Meilen?", "26 Meilen sind etwa 41,8 Kilometer."),
            (
                "Welcher Planet hat die meisten Monde?",
                "Saturn, mit mehr als 140 bekannten Monden, vor Jupiter.",
            ),
        ),
    ),
    "es": Chat(
        (
            Fact("Por cierto, me llamo Eufrasia.", "Eufrasia"),
            Fact("Soy alérgica al apio, no lo pongas nunca en una receta.", "apio"),
            Fact("El cumpleaños de mi hija es el 14 de marzo.", "14 de marzo"),
            Fact("Decidimos ir en tren a Teruel y no en coche.", "Teruel"),
            Fact("El código de la puerta del jardín es 7741.", "7741"),
            Fact("Vivo en Llanes desde el otoño pasado.", "Llanes"),
            Fact("Mi jefa se llama señora Etxeberria.", "Etxeberria"),
            Fact("Recuerda que el informe se entrega el 3 de diciembre.", "3 de diciembre"),
            Fact("Prefiero respuestas cortas, sin listas.", "sin listas"),
            Fact("El vuelo está reservado con PX4Q9Z.", "PX4Q9Z"),
        ),
        (
            Fact("La llave de repuesto cuelga detrás de la caldera.", "caldera"),
            Fact("Tomasz se fue de casa y se llevó el sofá.", "sofá"),
            Fact("Nuestra tienda vieja gotea por las costuras.", "costuras"),
            Fact("La carpeta azul está en el desván.", "desván"),
            Fact("El abuelo me enseñó a tallar cucharas.", "tallar"),
        ),
        (
            ("¡Buenos días!", "¡Buenos días! ¿En qué puedo ayudarte hoy?"),
            ("¿Va a llover más tarde?", "No veo el tiempo, pero en octubre llueve allí unos 12 días."),
            (
                "Cuéntame algo de los pulpos.",
                "Un pulpo tiene tres corazones y ocho brazos. Dos corazones sirven a las branquias. ¿No es bonito?",
            ),
            (
                "Ja, genial. ¿Y cuánto viven?",
                "La mayoría uno o dos años; el pulpo gigante llega a cinco. Avísame si quieres saber más.",
            ),
            (
                "¿Qué puedo cocinar con arroz que sobró?",
                "Arroz frito con huevo y guisantes en 10 minutos. O arroz con leche, con 500 ml de leche.",
            ),
            ("Suena bien, gracias.", "¡De nada! Buen provecho."),
            ("Ayer vi una película, fue un poco aburrida.", "Pasa a veces. ¿Era el ritmo o la historia?"),
            (
                "El ritmo, creo. Dos horas y media es mucho.",
                "Sí, muchas películas duran hoy más de 150 minutos.",
            ),
            (
                "¿Puedes explicar qué es la inflación?",
                "Inflación es que los precios suben en promedio. Los bancos centrales buscan un 2 por ciento. Espero que ayude.",
            ),
            ("Ah, entiendo.", "¿Hay algo más que quieras saber?"),
            ("¿Qué rima con árbol?", "Casi nada; en broma se dice 'mármol'."),
            ("Qué gracioso. Hoy estoy un poco cansada.", "Un paseo corto ayuda, o una siesta de 20 minutos."),
            ("¿Cuántos kilómetros son 26 millas?", "26 millas son unos 41,8 kilómetros."),
            (
                "¿Qué planeta tiene más lunas?",
                "Saturno, con más de 140 lunas conocidas, por delante de Júpiter.",
            ),
        ),
    ),
    "ru": Chat(
        (
            Fact("Кстати, меня зовут Пелагея.", "Пелагея"),
            Fact("У меня аллергия на сельдерей, не клади его в рецепты.", "сельдерей"),
            Fact("День рождения моей дочери 14 марта.", "14 марта"),
            Fact("Мы решили ехать в Муром на поезде, а не на машине.", "Муром"),
            Fact("Код от садовой калитки 7741.", "7741"),
            Fact("Я живу в Тарусе с прошлой осени.", "Тарус"),
            Fact("Мою начальницу зовут Кудашева.", "Кудашева"),
            Fact("Запомни: отчёт надо сдать 3 декабря.", "3 декабря"),
            Fact("Я предпочитаю короткие ответы без списков.", "без списков"),
            Fact("Рейс забронирован под кодом PX4Q9Z.", "PX4Q9Z"),
        ),
        (
            Fact("Запасной ключ висит за котлом.", "котлом"),
            Fact("Томаш съехал и забрал диван.", "диван"),
            Fact("Наша старая палатка течёт по швам.", "палатка"),
            Fact("Синяя папка лежит на чердаке.", "чердаке"),
            Fact("Дед научил меня вырезать ложки.", "ложки"),
        ),
        (
            ("Доброе утро!", "Доброе утро! Чем могу помочь сегодня?"),
            ("Сегодня ещё будет дождь?", "Погоды я не вижу, но в октябре там около 12 дождливых дней."),
            (
                "Расскажи что-нибудь об осьминогах.",
                "У осьминога три сердца и восемь рук. Два сердца работают на жабры. Красиво, правда?",
            ),
            (
                "Ха, отлично. А сколько они живут?",
                "Большинство год или два, гигантский осьминог до пяти. Дай знать, если хочешь ещё.",
            ),
            (
                "Что приготовить из остатков риса?",
                "Жареный рис с яйцом и горошком за 10 минут. Или рисовую кашу на 500 мл молока.",
            ),
            ("Звучит хорошо, спасибо.", "Пожалуйста! Приятного аппетита."),
            ("Вчера смотрела фильм, было скучновато.", "Бывает. Дело в темпе или в сюжете?"),
            (
                "Думаю, в темпе. Два с половиной часа это долго.",
                "Да, многие фильмы теперь длиннее 150 минут.",
            ),
            (
                "Объясни, что такое инфляция?",
                "Инфляция значит, что цены в среднем растут. Центральные банки хотят около 2 процентов в год. Надеюсь, помогло.",
            ),
            ("А, понятно.", "Могу помочь чем-нибудь ещё?"),
            ("Что рифмуется со словом солнце?", "Мало что; шутят про 'оконце'."),
            ("Забавно. Я сегодня немного устала.", "Поможет прогулка или сон на 20 минут."),
            ("Сколько километров в 26 милях?", "26 миль это около 41,8 километра."),
            ("У какой планеты больше всего спутников?", "У Сатурна, больше 140 известных, впереди Юпитера."),
        ),
    ),
    "zh": Chat(
        (
            Fact("对了，我叫欧阳知秋。", "欧阳知秋"),
            Fact("我对芹菜过敏，食谱里千万别放。", "芹菜"),
            Fact("我女儿的生日是3月14日。", "3月14日"),
            Fact("我们决定坐火车去平遥，不开车了。", "平遥"),
            Fact("花园门的密码是7741。", "7741"),
            Fact("我去年秋天搬到了大理。", "大理"),
            Fact("我的老板姓慕容。", "慕容"),
            Fact("请记住，报告的截止日期是12月3日。", "12月3日"),
            Fact("我喜欢简短的回答，不要列表。", "不要列表"),
            Fact("航班订了，编号是PX4Q9Z。", "PX4Q9Z"),
        ),
        (
            Fact("备用钥匙挂在锅炉后面。", "锅炉"),
            Fact("托马斯走了，带走了沙发。", "沙发"),
            Fact("旧帐篷的缝线漏水。", "帐篷"),
            Fact("蓝色文件夹放在阁楼里。", "阁楼"),
            Fact("爷爷教会我削木勺。", "木勺"),
        ),
        (
            ("早上好！", "早上好！今天有什么可以帮你？"),
            ("等会儿会下雨吗？", "我看不到天气，不过那里十月大约有12天下雨。"),
            ("讲讲章鱼吧。", "章鱼有三颗心脏和八条腕。其中两颗供应鳃。很有意思吧？"),
            ("哈哈，那它们能活多久？", "大多数一两年，太平洋巨型章鱼可以到五年。想了解更多就告诉我。"),
            ("剩米饭可以做什么？", "鸡蛋豌豆炒饭，10分钟就好。也可以用500毫升牛奶做米布丁。"),
            ("听起来不错，谢谢。", "不客气！祝你用餐愉快。"),
            ("昨天看了部电影，有点无聊。", "有时会这样。是节奏还是故事的问题？"),
            ("应该是节奏。两个半小时太长了。", "是的，现在很多电影都超过150分钟。"),
            (
                "通货膨胀是什么意思？",
                "通货膨胀是指物价平均上涨。中央银行的目标大约是每年百分之2。希望有帮助。",
            ),
            ("明白了。", "还有什么想知道的吗？"),
            ("什么字和月押韵？", "比如雪、夜，都可以。"),
            ("有意思。今天有点累。", "那就散散步，或者睡20分钟。"),
            ("26英里是多少公里？", "26英里大约是41.8公里。"),
            ("哪颗行星的卫星最多？", "土星，已知超过140颗，比木星多。"),
        ),
    ),
}


@dataclass(frozen=True)
class Recalled:
    language: str
    marked: float
    """Share of the marked facts that are still there."""
    plain: float
    lost: Sequence[str]
    rounds: int
    """Summaries that were made, those of summaries too."""
    percent: int
    """How full the window is at the end."""


async def recall(
    language: str, folder: Path, *, chat: Chat | None = None, is_new: bool = False, messages: int = 400
) -> Recalled:
    """Play a chat of so many messages, facts in its first 30, with no model to summarise it.

    The small talk comes again and again with one word of each sentence changed; `is_new`: with four of five.
    """
    chat = chat or CHATS[language]
    database = await SqliteDatabase.open(folder / f"recall-{language}-{len(chat.talk)}-{is_new}.db")
    settings = Settings()
    summariser = Summariser(database, settings, lambda _persona: None, now=lambda: NOW)
    try:
        session_id = ""
        for turn in range(messages // 2):
            asked, answered = _exchange(chat, turn, is_new=is_new)

            def say(tx: Transaction, asked: str = asked, answered: str = answered) -> str:
                queued = arrive(tx, incoming(asked, channel=f"recall-{language}"))
                claim = lane.claim(tx, queued.session_id, NOW, context_messages=20)
                assert claim is not None
                lane.finish(tx, claim, "completed", NOW, answer=answered)
                return queued.session_id

            session_id = await database.write(say)
            await summariser.summarise(session_id)  # type: ignore[arg-type]  # a plain string
        seen = await database.read(
            lambda tx: context.see_session(
                tx,
                lifecycle.find(tx, session_id, OperatorScope()),  # type: ignore[arg-type]  # same
                settings,
            )
        )
        rounds = await database.read(lambda tx: tx.rows("SELECT MAX(version) AS n FROM summaries"))
    finally:
        await database.close()
    text = "\n".join([seen.notes, *(message.content for message in seen.messages)]).lower()
    lost = [fact.key for fact in (*chat.facts, *chat.plain) if fact.key.lower() not in text]
    return Recalled(
        language,
        _share(chat.facts, text),
        _share(chat.plain, text),
        lost,
        int(rounds[0]["n"] or 0),
        seen.parts.percent,
    )


def _share(facts: Sequence[Fact], text: str) -> float:
    return sum(fact.key.lower() in text for fact in facts) / len(facts)


def _exchange(chat: Chat, turn: int, *, is_new: bool) -> tuple[str, str]:
    """What is said in a turn: in the first fifteen a fact follows the small talk."""
    facts = (*chat.facts, *chat.plain)
    asked, answered = chat.talk[turn % len(chat.talk)]
    if turn >= len(
        chat.talk
    ):  # the same talk again would be recognised as such: other things are talked about each time
        asked, answered = (_reworded(text, turn, is_new=is_new) for text in (asked, answered))
    if turn < len(facts):
        asked = f"{asked} {facts[turn].told}"
    return asked, answered


def _reworded(text: str, turn: int, *, is_new: bool) -> str:
    """The text with new words in the places of its longest ones: one in each sentence, or nearly all."""
    chance = random.Random(f"{turn} {text}")
    pieces = re.split(r"(?<=[.!?。！？])", text)
    return "".join(_replaced(piece, chance, is_new=is_new) for piece in pieces)


def _replaced(sentence: str, chance: random.Random, *, is_new: bool) -> str:
    words = re.findall("[\u4e00-\u9fff]{2}", sentence) or re.findall(r"[^\W\d_]{4,}", sentence)
    if not words:
        return sentence
    if not is_new:
        words = [chance.choice(words) if _is_han(words[0]) else max(words, key=len)]
    for word in words:
        if not is_new or chance.random() < 0.8:
            sentence = sentence.replace(word, _new_word(word, chance), 1)
    return sentence


def _is_han(word: str) -> bool:
    return "\u4e00" <= word[0] <= "\u9fff"


def _new_word(word: str, chance: random.Random) -> str:
    if _is_han(word):
        return "".join(chr(chance.randint(0x4E00, 0x8FFF)) for _ in range(2))
    is_cyrillic = any("а" <= sign <= "я" for sign in word.lower())
    consonants, vowels = ("бвгдзклмнпрст", "аеиоуя") if is_cyrillic else ("bdfgklmnprstv", "aeiou")
    return "".join(chance.choice(consonants) + chance.choice(vowels) for _ in range(chance.randint(2, 4)))


async def _main() -> None:
    from tests.sessions.recall_held_out import HELD_OUT  # it needs the classes of this module

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    for name, chats in (("tuned", CHATS), ("held out", HELD_OUT)):
        for is_new in (False, True):
            print(f"{name}, small talk with {'four words of five' if is_new else 'one word a sentence'} new")
            for language, chat in chats.items():
                with tempfile.TemporaryDirectory() as folder:
                    found = await recall(language, Path(folder), chat=chat, is_new=is_new)
                print(
                    f"  {language}  marked facts {found.marked:4.0%}, plain {found.plain:4.0%} after {found.rounds} summaries,"
                    f" window {found.percent} % full"
                )


if __name__ == "__main__":
    asyncio.run(_main())
