"""English forms that no rule finds, and derivations that only look like it. Data for morphology.

Both lists are of common words, not complete: a missing family lets a variant through, a missing
accident leaves out one word too many.
"""

from __future__ import annotations

# Each line: a word and its irregular forms. Regular forms are the stemmer's business. Verbs whose
# forms are everyday words of their own (saw, left, felt, ground, bore, found) are left out.
_FAMILIES = """
man men
woman women
child children
person people
foot feet
tooth teeth
goose geese
mouse mice
louse lice
ox oxen
die dice
penny pence
leaf leaves
loaf loaves
half halves
calf calves
wolf wolves
shelf shelves
elf elves
self selves
thief thieves
wife wives
knife knives
life lives
scarf scarves
hoof hooves
cactus cacti
fungus fungi
nucleus nuclei
stimulus stimuli
alumnus alumni
radius radii
bacterium bacteria
datum data
medium media
criterion criteria
phenomenon phenomena
crisis crises
oasis oases
thesis theses
axis axes
index indices
matrix matrices
vertex vertices
good better best
bad worse worst
be am is are was were been being
begin began begun
bend bent
bite bit bitten
bleed bled
blow blew blown
break broke broken
breed bred
bring brought
build built
buy bought
catch caught
choose chose chosen
come came
creep crept
deal dealt
dig dug
do did done does
draw drew drawn
dream dreamt
drink drank drunk
drive drove driven
eat ate eaten
fall fell fallen
feed fed
fight fought
flee fled
fling flung
fly flew flown
forbid forbade forbidden
forget forgot forgotten
forgive forgave forgiven
freeze froze frozen
get got gotten
give gave given
go went gone
grow grew grown
hang hung
have had has
hear heard
hide hid hidden
hold held
keep kept
kneel knelt
know knew known
lead led
leap leapt
lend lent
light lit
lose lost loss
make made
meet met
pay paid
ride rode ridden
ring rang rung
rise risen
run ran
say said
see seen
seek sought
sell sold
send sent
shake shook shaken
shine shone
shoot shot
shrink shrank shrunk
sing sang sung song
sink sank sunk
sit sat
sleep slept
slide slid
speak spoke spoken speech
spend spent
spin spun
spring sprang sprung
stand stood
steal stole stolen
stick stuck
sting stung
strike struck stricken
string strung
strive strove striven
swear swore sworn
sweep swept
swell swollen
swim swam swum
swing swung
take took taken
teach taught
tear tore torn
tell told
think thought
throw threw thrown
tread trod trodden
wake woke woken
wear wore worn
weave wove woven
weep wept
win won
wind wound
write wrote written
die death dead
live life alive
high height
long length
strong strength
wide width
deep depth
broad breadth
"""

LEMMAS: dict[str, frozenset[str]] = {}
"""The words that a form belongs to: `LEMMAS["wolves"] == {"wolf"}`."""
for _family in _FAMILIES.strip().splitlines():
    _lemma, *_forms = _family.split()
    for _form in _forms:
        LEMMAS[_form] = LEMMAS.get(_form, frozenset()) | {_lemma}

# word:other, where other + suffix spells word by accident; a stem stands for all its forms. Made by
# running the rules over the 12,000 most frequent words of wordfreq and reading what they found.
_ACCIDENTS = """
corner:corn flower:flow shower:show tower:tow center:cent centre:cent former:form number:numb
summer:sum dinner:din winner:wine sinner:sine matter:mat matter:matt letter:let better:bet
bitter:bit butter:but butter:butt latter:lat batter:bat litter:lit flatter:flat shutter:shut
gutter:gut ladder:lad hammer:ham banner:ban manner:man pepper:pep copper:cop supper:sup
rapper:rape offer:off inner:inn under:und prayer:pry mother:moth brother:broth bother:both
shoulder:should refer:ref liver:live carter:cart quarter:quart master:mast muster:must
mister:mist sister:sist platter:plat whisker:whisk hunger:hung finger:fine ginger:gin deer:dee
tender:tend fender:fend render:rend ponder:pond wander:wand cider:cid cover:cove hover:hove
temper:temp tamper:tamp hamper:hamp porter:port homer:home heather:heath chester:chest
palmer:palm easter:east meter:met meter:mete peter:pet miller:mil laser:las lesser:les lever:lev
linger:ling anger:ang tuber:tub fiber:fib order:ord proper:prop proper:prope counter:count
hyper:hype tapper:tap paper:pap sober:sob barrier:barry career:care sheer:she
waster:wast stagger:stag dagger:dag trigger:trig spanner:span queer:que timber:timb water:wat
later:lat eager:eag taper:tap taper:tape caper:cap caper:cape inter:int alter:alt
forest:for forest:fore harvest:harve interest:inter honest:hone modest:mode tempest:temp
earnest:earn priest:pry arrest:arr conquest:conque request:reque west:we nest:ne chest:che
color:col color:cole labor:lab honor:hon mayor:may minor:mine minor:min pastor:past pastor:paste
donor:done donor:don manor:man sensor:sens trait:tra tailor:tail traitor:trait motor:mote
factor:fact tumor:tum humor:hum rumor:rum rotor:rot rotor:rote tenor:ten error:err vapor:vape
connor:con windsor:winds razor:raz harbor:harb armor:arm actor:ace
party:part story:store early:earl county:count police:pole policy:police policy:polic
victory:victor holy:hole penny:pen puppy:pup happy:hap bunny:bun hobby:hob lobby:lob belly:bell
belly:belle jelly:jell silly:sill curry:cur carry:car marry:mar berry:ber ferry:fer sorry:sor
worry:wor hurry:hur merry:mer forty:fort navy:nave lady:lade shiny:shin pasty:past pasty:paste
tally:tall rally:rall bully:bull ruby:rub poppy:pop study:stud body:bod trophy:troph tory:tore
messy:mess tony:tone tracy:trace cody:code betty:bet billy:bill penny:penn barry:bar kelly:kell
panty:pant candy:cand daddy:dad fairy:fair ally:all army:arm jury:jure pony:pone pity:pit
final:fine internal:intern canal:cane moral:more marshal:marsh coral:core lateral:later
petal:pete rival:rive metal:mete partial:part portal:port oral:ore
signal:sign legal:leg royal:roy spiral:spire
listen:list mitten:mit raven:rave haven:have heaven:heave warden:ward pollen:poll linen:line
siren:sire leaven:leave christen:christ garden:gard kitten:kit hasten:hast
norman:norm cuban:cube milan:mile tartan:tart logan:log julian:july roman:rom organ:org
satan:sat titan:tit slogan:slog
magic:mage topic:tope organic:organ panic:pane static:state tropic:trope tunic:tune rustic:rust
music:muse tonic:tone attic:att picnic:pic relic:rel logic:loge mimic:mime
country:count infantry:infant pantry:pant pastry:past vestry:vest sentry:sent gentry:gent
every:eve surgery:surge battery:bat livery:live celery:cele gallery:gall mystery:myst
finish:fine polish:pole rubbish:rub parish:par punish:pun furnish:furn varnish:varn
assist:ass resist:res insist:ins consist:cons exist:exe
comment:com moment:mom garment:gar torment:tor pigment:pig document:docu figment:fig
message:mess savage:save hostage:host massage:mass damage:dame cottage:cot cabbage:cab
bandage:band pillage:pill homage:home rampage:ramp voyage:voy village:vill
native:nate forgive:forge archive:arch missive:miss motive:mote olive:ole
distance:dist sentence:sent finance:fine romance:rome licence:lice chance:cha balance:bale
mission:miss passion:pass portion:port motion:mote nation:nate ration:rate station:state
lotion:lote notion:note potion:pot million:mill billion:bill section:sect faction:fact
question:quest minion:mine pinion:pine stallion:stall legion:leg vision:vise version:verse
pension:pens mansion:mans
organize:organ organise:organ testify:test constable:const parable:par table:tab stable:stab
nation:nat station:stat donation:don
forward:for reward:re steward:stew random:ran
early:ear apply:app reply:rep imply:imp comply:comp
ever:eve apply:apple applic:apple comic:come city:cite copy:cope donation:done indian:indeed
impossible:impose minist:mine mineral:mine notion:not notic:note onion:one ration:rat ready:read
restor:rest special:species tenni:ten they:thee treaty:treat someth:some material:mate
spanish:span door:do sincer:since statist:state memor:meme domestic:dome funer:fun
serious:series paradise:parade eleven:elevate capabl:cape cookie:cook movie:move
breadth:bread health:heal wealth:weal fourth:fort youth:you earth:ear month:mon tooth:too
faith:fai death:dea worth:wor north:nor south:sou
"""

ACCIDENTS: dict[str, frozenset[str]] = {}
"""The words that a word seems to be derived from, and is not: `ACCIDENTS["corner"] == {"corn"}`."""
for _pair in _ACCIDENTS.split():
    _word, _other = _pair.split(":")
    ACCIDENTS[_word] = ACCIDENTS.get(_word, frozenset()) | {_other}
