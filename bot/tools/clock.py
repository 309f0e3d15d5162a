"""The time at a place: cities, countries and abbreviations to IANA time zones.

Owns finding the zone. What the time is comes from the turn; how an answer is worded belongs to whoever asked.
The zone files are read on the first use, so callers in an event loop go through `find_zone` in a thread.
"""

import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from types import MappingProxyType
from zoneinfo import ZoneInfo, available_timezones

_OTHER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        # zone: names people use for it which the zone database does not know (accents and case do not matter)
        "America/Los_Angeles": "san francisco, sf, seattle, portland, san diego, las vegas, san jose, silicon valley,"
        " california, kalifornien, la, pst, pdt, pacific time",
        "America/Denver": "salt lake city, albuquerque, colorado, mst, mountain time",
        "America/Chicago": "houston, dallas, austin, san antonio, new orleans, memphis, minneapolis, texas, cst,"
        " central time",
        "America/New_York": "boston, washington, washington dc, miami, atlanta, philadelphia, nyc, new york city,"
        " orlando, charlotte, pittsburgh, florida, east coast, est, edt, eastern time, usa, united states",
        "America/Toronto": "ottawa, montreal, quebec, canada, kanada",
        "America/Vancouver": "victoria, british columbia",
        "America/Mexico_City": "mexico, mexiko, guadalajara, mexiko-stadt",
        "America/Sao_Paulo": "rio, rio de janeiro, brasilia, brazil, brasilien",
        "America/Argentina/Buenos_Aires": "argentina, argentinien",
        "America/Bogota": "colombia, kolumbien, medellin",
        "America/Lima": "peru",
        "Europe/London": "manchester, liverpool, birmingham, edinburgh, glasgow, cardiff, leeds, bristol, oxford,"
        " cambridge, uk, england, scotland, schottland, great britain, united kingdom, grossbritannien, bst",
        "Europe/Dublin": "cork, galway, ireland, irland",
        "Europe/Berlin": "munich, munchen, muenchen, hamburg, cologne, koln, koeln, frankfurt, stuttgart, dusseldorf,"
        " duesseldorf, leipzig, dresden, bremen, hannover, hanover, nurnberg, nuremberg, bonn, essen, dortmund,"
        " karlsruhe, freiburg, germany, deutschland, mez, mesz, cest, central european time",
        "Europe/Vienna": "wien, graz, salzburg, linz, innsbruck, austria, osterreich, oesterreich",
        "Europe/Zurich": "zuerich, geneva, genf, basel, bern, lausanne, luzern, lucerne, switzerland, schweiz",
        "Europe/Paris": "lyon, marseille, nice, nizza, toulouse, bordeaux, strasbourg, strassburg, france, frankreich",
        "Europe/Rome": "rom, milan, mailand, florence, florenz, naples, neapel, venice, venedig, turin, italy, italien",
        "Europe/Madrid": "barcelona, seville, sevilla, valencia, malaga, spain, spanien",
        "Europe/Lisbon": "lissabon, porto",
        "Europe/Brussels": "brussel, bruessel, antwerp, antwerpen, belgium, belgien",
        "Europe/Amsterdam": "rotterdam, the hague, den haag, utrecht, netherlands, holland, niederlande",
        "Europe/Copenhagen": "kopenhagen, denmark, danemark, daenemark",
        "Europe/Stockholm": "gothenburg, goteborg, malmo, sweden, schweden",
        "Europe/Oslo": "bergen, norway, norwegen",
        "Europe/Helsinki": "finland, finnland, tampere",
        "Europe/Warsaw": "warschau, krakow, krakau, gdansk, danzig, wroclaw, breslau, poland, polen",
        "Europe/Prague": "prag, brno, czechia, tschechien",
        "Europe/Budapest": "hungary, ungarn",
        "Europe/Bucharest": "bukarest, romania, rumanien, rumaenien",
        "Europe/Belgrade": "belgrad, serbia, serbien",
        "Europe/Athens": "athen, greece, griechenland, thessaloniki",
        "Europe/Istanbul": "ankara, izmir, turkey, turkei, tuerkei",
        "Europe/Kyiv": "kiev, kiew, lviv, odesa, ukraine",
        "Europe/Moscow": "moskau, saint petersburg, st petersburg, petersburg, russia, russland",
        "Africa/Cairo": "kairo, agypten, aegypten, egypt",
        "Africa/Johannesburg": "cape town, kapstadt, durban, pretoria, south africa, sudafrika, suedafrika",
        "Africa/Nairobi": "kenya, kenia",
        "Africa/Lagos": "abuja, nigeria",
        "Africa/Casablanca": "morocco, marokko, rabat, marrakesch, marrakesh",
        "Asia/Jerusalem": "tel aviv, haifa, israel",
        "Asia/Dubai": "abu dhabi, uae",
        "Asia/Riyadh": "riad, jeddah, mecca, mekka, saudi arabia",
        "Asia/Tehran": "teheran, iran",
        "Asia/Karachi": "islamabad, lahore, pakistan",
        "Asia/Kolkata": "delhi, new delhi, neu-delhi, mumbai, bombay, bangalore, bengaluru, chennai, hyderabad, pune,"
        " goa, india, indien, ist",
        "Asia/Bangkok": "thailand, phuket, chiang mai",
        "Asia/Ho_Chi_Minh": "hanoi, vietnam",
        "Asia/Singapore": "singapur",
        "Asia/Jakarta": "indonesia, indonesien",
        "Asia/Makassar": "bali, denpasar",
        "Asia/Shanghai": "beijing, peking, shenzhen, guangzhou, wuhan, chengdu, china",
        "Asia/Hong_Kong": "hongkong",
        "Asia/Manila": "philippines, philippinen, cebu",
        "Asia/Seoul": "busan, korea, south korea, sudkorea, suedkorea",
        "Asia/Tokyo": "tokio, osaka, kyoto, kioto, nagoya, sapporo, yokohama, japan, jst",
        "Australia/Sydney": "canberra, australia, australien",
        "Pacific/Auckland": "wellington, christchurch, new zealand, neuseeland",
        "Pacific/Honolulu": "hawaii",
        "UTC": "utc, gmt, z, zulu, greenwich, universal time, weltzeit",
    }
)


def _plain(name: str) -> str:
    """`São Paulo`, `sao_paulo` and `SAO PAULO` are one name."""
    split = unicodedata.normalize("NFKD", name.replace("_", " ").replace("-", " ").replace("ß", "ss"))
    letters = "".join(sign for sign in split if not unicodedata.combining(sign))
    return " ".join(letters.casefold().replace(".", "").split())


@lru_cache(maxsize=1)
def _zones_by_name() -> Mapping[str, str]:
    found: dict[str, str] = {}
    for key in sorted(available_timezones()):
        area, _, rest = key.rpartition("/")
        if area != "Etc" and area.partition("/")[0] not in {"SystemV", "posix", "right"}:
            found.setdefault(_plain(rest), key)
        found.setdefault(_plain(key), key)
    # A link such as America/Buenos_Aires must not hide the zone itself, and our names beat accidents ("est").
    for key, names in _OTHER_NAMES.items():
        for name in (key.rpartition("/")[2], *names.split(",")):
            found[_plain(name)] = key
    return MappingProxyType(found)


@lru_cache(maxsize=512)
def find_zone(place: str) -> ZoneInfo | None:
    """The time zone of a city, a country, an abbreviation or an IANA name; None if the place is unknown.

    Reads files on the first use.
    """
    if len(place) > 100:
        return None
    key = _zones_by_name().get(_plain(place))
    return ZoneInfo(key) if key else None


WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def describe_moment(now: datetime, zone: tzinfo | None, place: str | None) -> dict[str, str]:
    """The moment at a place as the clock tool tells it; `zone` None keeps the turn's own."""
    local = now.astimezone(zone) if zone else now if now.tzinfo else now.replace(tzinfo=UTC)
    told = {
        "place": place or "",
        "time_zone": getattr(local.tzinfo, "key", None) or local.tzname() or "UTC",
        "time": local.isoformat(timespec="seconds"),
        "weekday": WEEKDAYS[local.weekday()],
    }
    if not place:
        del told["place"]
    return told
