"""A second recall set, which nothing was tuned on: other people, other facts, other small talk.

Owns the conversations only. Whoever changes the digest measures here last, and does not look which facts were lost.
"""

from collections.abc import Mapping
from typing import Final

from tests.sessions.recall import Chat, Fact

HELD_OUT: Final[Mapping[str, Chat]] = {
    "en": Chat(
        (
            Fact("My sister is called Lena and she studies in Graz.", "Lena"),
            Fact("We have been married since 9 August 2011.", "2011"),
            Fact("The plumber comes on Thursday at half past four, his number is 0171 5550.", "5550"),
            Fact("I would rather have tea than coffee.", "tea than"),
            Fact("Project Heron goes to Mr Adeyemi.", "Adeyemi"),
            Fact("Our rent is 840 a month.", "840"),
        ),
        (
            Fact("Grandma keeps her letters in a biscuit tin.", "biscuit"),
            Fact("The neighbours are building a sauna in their shed.", "sauna"),
            Fact("Since the accident Yusuf walks with a cane.", "cane"),
            Fact("The left burner of the stove does not light.", "burner"),
            Fact("At school they nicknamed me hedgehog.", "hedgehog"),
            Fact("The choir rehearses in the old mill.", "old mill"),
        ),
        (
            ("Hey, are you there?", "Yes, I am here. What would you like to talk about?"),
            (
                "Nothing special, I am just bored.",
                "Then let us find something. Do you like riddles or music?",
            ),
            (
                "Why do cats purr?",
                "Cats purr when they are content, and sometimes to calm themselves. It is about 25 vibrations a second.",
            ),
            ("Ah okay, that is cute.", "It is! Researchers still argue about how exactly it works."),
            (
                "How do I get a coffee stain out of a shirt?",
                "Rinse it with cold water, then use a little dish soap and wait 15 minutes.",
            ),
            ("I will try that later.", "Good luck! Do not use hot water, it fixes the stain."),
            ("What is the tallest mountain in Africa?", "Kilimanjaro, with 5,895 metres."),
            ("I never knew that.", "Many people guess Mount Kenya, which is the second."),
            ("The bus was late again this morning.", "That is annoying. Did you have to wait long?"),
            ("A quarter of an hour or so.", "Enough for a podcast at least."),
        ),
    ),
    "de": Chat(
        (
            Fact("Meine Schwester heißt Lena und studiert in Graz.", "Lena"),
            Fact("Wir sind seit dem 9. August 2011 verheiratet.", "2011"),
            Fact("Der Klempner kommt Donnerstag um halb fünf, seine Nummer ist 0171 5550.", "5550"),
            Fact("Ich trinke lieber Tee als Kaffee.", "tee als"),
            Fact("Das Projekt Reiher bekommt Herr Adeyemi.", "Adeyemi"),
            Fact("Unsere Miete beträgt 840 im Monat.", "840"),
        ),
        (
            Fact("Oma bewahrt ihre Briefe in einer Keksdose auf.", "Keksdose"),
            Fact("Die Nachbarn bauen sich eine Sauna in den Schuppen.", "Sauna"),
            Fact("Seit dem Unfall geht Yusuf am Stock.", "Stock"),
            Fact("Die linke Herdplatte wird nicht mehr warm.", "Herdplatte"),
            Fact("In der Schule nannten sie mich Igel.", "Igel"),
            Fact("Der Chor probt in der alten Mühle.", "Mühle"),
        ),
        (
            ("He, bist du da?", "Ja, ich bin da. Worüber möchtest du reden?"),
            (
                "Nichts Besonderes, mir ist nur langweilig.",
                "Dann finden wir etwas. Magst du Rätsel oder Musik?",
            ),
            (
                "Warum schnurren Katzen?",
                "Katzen schnurren, wenn sie zufrieden sind, und manchmal zur Beruhigung. Es sind etwa 25 Schwingungen in der Sekunde.",
            ),
            ("Ah okay, das ist niedlich.", "Ja! Forscher streiten noch, wie es genau geht."),
            (
                "Wie bekomme ich einen Kaffeefleck aus dem Hemd?",
                "Kalt ausspülen, dann etwas Spülmittel und 15 Minuten warten.",
            ),
            ("Das versuche ich später.", "Viel Erfolg! Kein heißes Wasser, das macht den Fleck fest."),
            ("Welcher ist der höchste Berg in Afrika?", "Der Kilimandscharo mit 5895 Metern."),
            ("Das wusste ich nicht.", "Viele tippen auf den Mount Kenya, der ist der zweite."),
            ("Der Bus war heute früh wieder zu spät.", "Das ist ärgerlich. Musstest du lange warten?"),
            ("Eine Viertelstunde ungefähr.", "Das reicht immerhin für einen Podcast."),
        ),
    ),
    "es": Chat(
        (
            Fact("Mi hermana se llama Lena y estudia en Graz.", "Lena"),
            Fact("Estamos casados desde el 9 de agosto de 2011.", "2011"),
            Fact("El fontanero viene el jueves a las cuatro y media, su número es 0171 5550.", "5550"),
            Fact("Me gusta más el té que el café.", "té que"),
            Fact("El proyecto Garza lo lleva el señor Adeyemi.", "Adeyemi"),
            Fact("Pagamos 840 al mes de alquiler.", "840"),
        ),
        (
            Fact("La abuela guarda sus cartas en una lata de galletas.", "galletas"),
            Fact("Los vecinos están montando una sauna en el cobertizo.", "cobertizo"),
            Fact("Desde el accidente Yusuf camina con bastón.", "bastón"),
            Fact("El fogón izquierdo de la cocina no enciende.", "fogón"),
            Fact("En el colegio me apodaban erizo.", "erizo"),
            Fact("El coro ensaya en el molino viejo.", "molino"),
        ),
        (
            ("Oye, ¿estás ahí?", "Sí, aquí estoy. ¿De qué quieres hablar?"),
            (
                "De nada especial, solo me aburro.",
                "Pues busquemos algo. ¿Te gustan los acertijos o la música?",
            ),
            (
                "¿Por qué ronronean los gatos?",
                "Los gatos ronronean cuando están a gusto y a veces para calmarse. Son unas 25 vibraciones por segundo.",
            ),
            ("Ah, vale, qué monos.", "¡Sí! Los investigadores aún discuten cómo funciona."),
            (
                "¿Cómo quito una mancha de café de una camisa?",
                "Enjuágala con agua fría, ponle un poco de jabón y espera 15 minutos.",
            ),
            ("Luego lo pruebo.", "¡Suerte! No uses agua caliente, que fija la mancha."),
            ("¿Cuál es la montaña más alta de África?", "El Kilimanjaro, con 5895 metros."),
            ("No lo sabía.", "Muchos creen que es el monte Kenia, que es el segundo."),
            ("El autobús llegó tarde otra vez esta mañana.", "Qué fastidio. ¿Tuviste que esperar mucho?"),
            ("Un cuarto de hora más o menos.", "Da para un podcast por lo menos."),
        ),
    ),
    "ru": Chat(
        (
            Fact("Мою сестру зовут Лена, она учится в Граце.", "Лена"),
            Fact("Мы женаты с 9 августа 2011 года.", "2011"),
            Fact("Сантехник придёт в четверг в половине пятого, его номер 0171 5550.", "5550"),
            Fact("Чай я люблю больше, чем кофе.", "чай я"),
            Fact("Проект Цапля достанется господину Адейеми.", "Адейеми"),
            Fact("За квартиру мы платим 840 в месяц.", "840"),
        ),
        (
            Fact("Бабушка хранит письма в жестянке из-под печенья.", "жестянке"),
            Fact("Соседи строят в сарае сауну.", "сауну"),
            Fact("После аварии Юсуф ходит с тростью.", "тростью"),
            Fact("Левая конфорка на плите не зажигается.", "конфорка"),
            Fact("В школе меня дразнили ёжиком.", "ёжиком"),
            Fact("Хор репетирует на старой мельнице.", "мельнице"),
        ),
        (
            ("Эй, ты тут?", "Да, я здесь. О чём хочешь поговорить?"),
            ("Ни о чём особенном, просто скучно.", "Тогда найдём что-нибудь. Любишь загадки или музыку?"),
            (
                "Почему кошки мурлыкают?",
                "Кошки мурлыкают, когда им хорошо, а иногда чтобы успокоиться. Это около 25 колебаний в секунду.",
            ),
            ("А, ясно, как мило.", "Да! Учёные до сих пор спорят, как именно это происходит."),
            (
                "Как вывести пятно от кофе с рубашки?",
                "Промой холодной водой, потом немного мыла, и подожди 15 минут.",
            ),
            ("Попробую потом.", "Удачи! Только не горячей водой, она закрепит пятно."),
            ("Какая самая высокая гора в Африке?", "Килиманджаро, 5895 метров."),
            ("Я этого не знал.", "Многие думают, что гора Кения, но она вторая."),
            ("Автобус сегодня утром опять опоздал.", "Досадно. Долго пришлось ждать?"),
            ("Минут пятнадцать или около того.", "На подкаст хватит, по крайней мере."),
        ),
    ),
    "zh": Chat(
        (
            Fact("我妹妹叫莱娜，在格拉茨上大学。", "莱娜"),
            Fact("我们是2011年8月9日结婚的。", "2011"),
            Fact("水管工星期四下午四点半来，他的号码是0171 5550。", "5550"),
            Fact("比起咖啡我更爱喝茶。", "喝茶"),
            Fact("苍鹭项目交给阿德耶米先生。", "阿德耶米"),
            Fact("我们的房租是每月840。", "840"),
        ),
        (
            Fact("奶奶把信都收在饼干盒里。", "饼干盒"),
            Fact("邻居正在棚子里盖桑拿房。", "桑拿"),
            Fact("出事以后优素福走路要拄拐杖。", "拐杖"),
            Fact("灶台左边那个火点不着了。", "灶台"),
            Fact("上学时大家都管我叫刺猬。", "刺猬"),
            Fact("合唱团在老磨坊排练。", "磨坊"),
        ),
        (
            ("喂，你在吗？", "在的。你想聊点什么？"),
            ("没什么特别的，就是无聊。", "那就找点事做。你喜欢猜谜还是听音乐？"),
            ("猫为什么会打呼噜？", "猫舒服的时候会打呼噜，有时是为了让自己平静。大约每秒25次振动。"),
            ("哦这样，真可爱。", "是啊！研究人员还在争论到底是怎么回事。"),
            ("衬衫上的咖啡渍怎么去掉？", "先用冷水冲，再加一点洗洁精，等15分钟。"),
            ("待会儿试试。", "祝顺利！别用热水，会让污渍更难洗。"),
            ("非洲最高的山是哪座？", "乞力马扎罗山，5895米。"),
            ("这我还真不知道。", "很多人猜是肯尼亚山，那是第二高。"),
            ("今天早上公交车又晚点了。", "真烦人。你等了很久吗？"),
            ("一刻钟左右吧。", "至少够听一期播客了。"),
        ),
    ),
}
