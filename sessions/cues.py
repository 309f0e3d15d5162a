"""Words that tell a sentence worth keeping from small talk, in English, German, Spanish, Russian and Chinese.

Owns the lists only; how they weigh is `digest.py`. Small letters; a cue stands at the beginning of a word, Chinese anywhere.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Cues:
    """Chinese cues, and all others by how they begin: with the space before the word and its first two characters."""

    han: tuple[str, ...]
    others: Mapping[str, tuple[str, ...]]


def _cues(text: str) -> Cues:
    han: list[str] = []
    others: defaultdict[str, list[str]] = defaultdict(list)
    for cue in filter(None, (piece.strip() for piece in text.split(","))):
        if "\u3400" <= cue[0] <= "\u9fff":
            han.append(cue)
        else:
            others[f" {cue}"[:3]].append(f" {cue}")
    return Cues(tuple(han), {beginning: tuple(cues) for beginning, cues in others.items()})


FACT: Final = _cues(
    # who somebody is, what is theirs, what they like and cannot have, what is to be remembered
    "my name, my wife, my husband, my son, my daughter, my brother, my sister, my mother, my father,"
    "my birthday, my address,"
    "my phone, my number, my email, my dog, my cat, my doctor, my boss, my job, my favourite,"
    "my favorite, my flight, my order,"
    "my password, my account, call me, i am called, i'm called, i live, i work, i was born, i am from,"
    "i'm from, i am allergic,"
    "i'm allergic, allergic to, allergy, i prefer, i can't stand, i cannot eat, i don't eat, vegetarian,"
    "vegan, remember that,"
    "remember:, please remember, don't forget, note that, keep in mind, is called, is named, moved to,"
    "we live, meet at,"
    "is located, is due, deadline, costs, booked, arrives, leaves at, starts at, the code, the password,"
    "the key is,"
    "birthday, anniversary, wedding, appointment, phone number, passport, is my, are my,"
    # de
    "mein name, ich heiße, ich heisse, meine frau, mein mann, mein sohn, meine tochter, mein bruder,"
    "meine schwester,"
    "meine mutter, mein vater, mein geburtstag, meine adresse, meine telefonnummer, meine nummer,"
    "meine e-mail, mein hund,"
    "meine katze, mein arzt, meine ärztin, mein chef, meine chefin, mein lieblings, meine lieblings,"
    "mein flug, meine bestellung,"
    "nenn mich, ich wohne, ich lebe, ich arbeite, ich bin geboren, ich komme aus, allergisch, allergie,"
    "ich mag kein,"
    "ich esse kein, ich vertrage, vegetarier, merk dir, merke dir, denk daran, vergiss nicht,"
    "bitte merken, wichtig:, namens,"
    "heißt, heisst, umgezogen, wir wohnen, treffpunkt, treffen uns, die frist, abgabe, kostet, gebucht,"
    "kommt an, fährt um,"
    "beginnt um, der code, das passwort, die pin,"
    "geburtstag, hochzeitstag, termin, telefonnummer, ist mein, ist meine,"
    # es
    "me llamo, mi nombre, mi esposa, mi mujer, mi marido, mi hijo, mi hija, mi hermano, mi hermana,"
    "mi madre, mi padre,"
    "mi cumpleaños, mi dirección, mi teléfono, mi número, mi correo, mi perro, mi perra, mi gato,"
    "mi gata, mi médico, mi jefe,"
    "mi jefa, mi trabajo, mi favorit, mi vuelo, mi pedido, llámame, vivo en, trabajo en, trabajo como,"
    "nací, soy de, alérgic,"
    "alergia, prefiero, no como, no puedo comer, vegetarian, recuerda que, recuerda:, no olvides,"
    "ten en cuenta, se llama,"
    "nos mudamos, me mudé, quedamos en, la fecha límite, el plazo, cuesta, reservad, llega a, sale a las,"
    "empieza a las,"
    "el código, la contraseña, la clave,"
    "cumpleaños, aniversario, la cita, número de teléfono, es mi,"
    # ru
    "меня зовут, моё имя, мое имя, моя жена, мой муж, мой сын, моя дочь, мой брат, моя сестра, моя мама,"
    "мой отец, мой папа,"
    "мой день рождения, мой адрес, мой телефон, мой номер, моя почта, моя собака, мой пёс, мой кот,"
    "моя кошка, мой врач,"
    "мой начальник, моя работа, мой любим, моя любим, моё любим, мой рейс, мой заказ, зови меня,"
    "называй меня, я живу,"
    "я работаю, я родил, я из, аллерги, я предпочитаю, я не ем, вегетариан, запомни, не забудь, учти,"
    "важно:, зовут, переехал,"
    "мы живём, встречаемся, крайний срок, срок сдачи, дедлайн, стоит, забронирова, прибывает,"
    "отправляется, начинается в, код,"
    "пароль, ключ,"
    "день рождения, годовщина, моей, моего, номер телефона, у меня,"
    # zh
    "我叫, 我的名字, 我姓, 我老婆, 我妻子, 我丈夫, 我老公, 我儿子, 我女儿, 我哥, 我弟, 我姐, 我妹, 我妈,"
    "我爸, 我的生日, 我生日, 我的地址,"
    "我的电话, 我的号码, 我的邮箱, 我的狗, 我的猫, 我家, 我的医生, 我的老板, 我最喜欢, 我的航班,"
    "我的订单, 叫我, 我住, 我在, 我出生, 我来自,"
    "过敏, 我喜欢, 我不吃, 我不能吃, 素食, 记住, 请记, 别忘, 不要忘, 注意, 名叫, 名字是, 搬到, 搬家,"
    "见面, 截止, 期限, 价格, 预订, 订了, 到达,"
    "出发, 开始时间, 密码, 代码, 编号"
)

DECISION: Final = _cues(
    "we decided, we agreed, i decided, decided to, agreed to, agreed on, let's go with, we will use,"
    "we'll use, we chose, i chose,"
    "the plan is, final decision, approved, it's settled, instead of, cancelled, canceled, postponed,"
    "wir haben beschlossen, beschlossen, entschieden, wir nehmen, vereinbart, abgemacht, der plan ist,"
    "genehmigt, abgesagt,"
    "verschoben, stattdessen, einigen uns,"
    "decidimos, hemos decidido, he decidido, acordamos, hemos acordado, quedamos con, elegimos,"
    "el plan es, aprobad, cancelad,"
    "pospuest, aplazad, en lugar de,"
    "мы решили, я решил, решено, договорились, решили, выбрали, мы берём, план такой, одобрен, утвержд,"
    "отменён, отменили,"
    "перенес, вместо,"
    "我们决定, 我决定, 决定, 说好, 约好, 商定, 同意, 选了, 选择了, 计划是, 批准, 取消, 推迟, 改成, 改到"
)

OPEN: Final = _cues(
    "to do, todo, still need, need to, have to, must, remind me, waiting for, by friday, by monday,"
    "next week, tomorrow, next step,"
    "muss noch, müssen noch, erinnere mich, warte auf, bis freitag, bis montag, nächste woche, morgen,"
    "offen,"
    "hay que, falta, tengo que, tenemos que, recuérdame, esperando, antes del, la próxima semana, mañana,"
    "pendiente,"
    "нужно, надо, осталось, напомни, жду, к пятнице, до пятницы, на следующей неделе, завтра,"
    "需要, 还要, 必须, 提醒我, 等待, 下周, 明天, 之前"
)

COURTESY: Final = _cues(
    "hello, hi, hey, thanks, thank you, good morning, good evening, good night, ok, okay, sure, great,"
    "nice, cool, bye,"
    "see you, you're welcome, how are you, haha, lol, interesting, i see,"
    "hallo, guten morgen, guten abend, gute nacht, danke, gern, bitte sehr, super, toll, alles klar,"
    "tschüss, bis bald,"
    "wie geht, ach so, interessant, na gut,"
    "hola, buenos días, buenas tardes, buenas noches, gracias, de nada, vale, genial, claro, adiós,"
    "hasta luego, qué tal,"
    "interesante, jaja,"
    "привет, здравствуй, доброе утро, добрый вечер, спокойной ночи, спасибо, пожалуйста, хорошо, ладно,"
    "отлично, пока, понятно,"
    "как дела, интересно, ага,"
    "你好, 早上好, 晚上好, 晚安, 谢谢, 不客气, 好的, 当然, 太好了, 再见, 你好吗, 有意思, 哈哈, 明白"
)

HEARSAY: Final = _cues(
    # what assistants say in every answer and nobody needs to be told again
    "let me know, feel free, i can help, happy to help, is there anything else, as an ai, i hope,"
    "hope this helps,"
    "sag bescheid, ich helfe gern, kann ich sonst, ich hoffe,"
    "avísame, puedo ayudar, algo más, espero que,"
    "дай знать, могу помочь, что-нибудь ещё, надеюсь,"
    "告诉我, 我可以帮, 还有什么, 希望"
)
