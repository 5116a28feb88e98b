//! The words of the sample texts. No theme shares a word with another, and none names a colour, a
//! shape or a pattern.

/// What a text can be about.
#[derive(Debug)]
pub(super) struct TextTheme {
    pub(super) topics: [&'static str; 8],
    pub(super) things: [&'static str; 16],
    /// Verbs in the past tense.
    pub(super) acts: [&'static str; 8],
}

/// All text themes.
#[rustfmt::skip]
pub(super) const TEXT_THEMES: [TextTheme; 16] = [
    // Cooking
    TextTheme {
        topics: [
            "recipes", "kitchen", "dinner", "baking", "homemade", "supper", "cuisine", "foodie",
        ],
        things: [
            "soup", "dough", "noodles", "curry", "skillet", "oven", "broth", "pie crust",
            "omelette", "garlic", "lentils", "dumpling", "sauce", "roast", "pancake", "spices",
        ],
        acts: [
            "simmered", "kneaded", "seasoned", "fried", "whisked", "chopped", "steamed",
            "tasted",
        ],
    },
    // Hiking
    TextTheme {
        topics: [
            "outdoors", "trails", "mountains", "camping", "trekking", "wilderness",
            "backpacking", "summit",
        ],
        things: [
            "ridge", "tent", "boots", "valley", "campfire", "rucksack", "gorge", "waterfall",
            "map", "glacier", "footpath", "shelter", "peak", "compass", "meadow", "canyon",
        ],
        acts: [
            "climbed", "camped by", "crossed", "descended", "mapped", "explored", "reached",
            "traversed",
        ],
    },
    // Gardening
    TextTheme {
        topics: [
            "garden", "plants", "growing", "allotment", "harvest", "compost", "seedlings",
            "botany",
        ],
        things: [
            "tomatoes", "seeds", "soil", "lilies", "sprinkler", "weeds", "hedge", "tulips",
            "orchard", "herbs", "shovel", "mulch", "beans", "lawn", "flowerpot", "ivy",
        ],
        acts: [
            "watered", "planted", "pruned", "weeded", "dug up", "sowed", "repotted", "picked",
        ],
    },
    // Music
    TextTheme {
        topics: [
            "music", "band", "melody", "concert", "songs", "acoustic", "orchestra", "studio",
        ],
        things: [
            "guitar", "piano", "chorus", "drums", "violin", "lyrics", "bass line", "metronome",
            "rehearsal", "chords", "trumpet", "album", "vinyl", "choir", "duet", "encore",
        ],
        acts: [
            "tuned", "strummed", "recorded", "hummed", "composed", "practised", "performed",
            "mixed",
        ],
    },
    // Fitness
    TextTheme {
        topics: [
            "fitness", "workout", "gym", "training", "strength", "cardio", "stretching",
            "running",
        ],
        things: [
            "squats", "dumbbell", "treadmill", "push-ups", "sprint", "yoga mat", "plank",
            "rowing", "kettlebell", "warm-up", "marathon", "coach", "lunges", "pulse", "burpees",
            "barbell",
        ],
        acts: [
            "lifted", "sprinted to", "stretched", "sweated on", "trained for", "outran",
            "repeated", "raced",
        ],
    },
    // Pets
    TextTheme {
        topics: [
            "pets", "puppy", "kitten", "animals", "rescue", "vet", "pawprints", "companion",
        ],
        things: [
            "leash", "litter tray", "hamster", "terrier", "parrot", "kennel", "whiskers",
            "treats", "rabbit", "tail", "aquarium", "collar", "beagle", "catnip", "fur",
            "canary",
        ],
        acts: [
            "petted", "walked", "groomed", "fed", "adopted", "cuddled", "chased", "brushed",
        ],
    },
    // Repair
    TextTheme {
        topics: [
            "workshop", "tools", "repair", "carpentry", "renovation", "plumbing", "woodwork",
            "fixing",
        ],
        things: [
            "hammer", "drill", "screws", "shelf", "hinge", "faucet", "sandpaper", "girder",
            "ladder", "toolbox", "wallpaper", "nails", "sawdust", "varnish", "pipe", "cabinet",
        ],
        acts: [
            "sanded", "hammered", "drilled", "glued", "mended", "measured", "sawed", "installed",
        ],
    },
    // Reading
    TextTheme {
        topics: [
            "books", "library", "novels", "literature", "fiction", "bookclub", "poetry",
            "authors",
        ],
        things: [
            "chapter", "paperback", "plot twist", "memoir", "sequel", "footnote", "bookmark",
            "trilogy", "narrator", "essay", "fairy tale", "thriller", "epilogue", "preface",
            "biography", "verse",
        ],
        acts: [
            "read", "reread", "finished", "skimmed", "annotated", "quoted", "borrowed",
            "devoured",
        ],
    },
    // Games
    TextTheme {
        topics: [
            "boardgames", "strategy", "puzzles", "chess", "dice", "tabletop", "cardgames",
            "playtime",
        ],
        things: [
            "rook", "pawn", "opening", "rulebook", "meeple", "jigsaw", "scoreboard", "deck",
            "gambit", "checkmate", "riddle", "trivia", "token", "tournament", "bishop",
            "crossword",
        ],
        acts: [
            "played", "solved", "shuffled", "won with", "lost", "bluffed with", "traded",
            "bet on",
        ],
    },
    // Travel
    TextTheme {
        topics: [
            "travel", "vacation", "airport", "journeys", "itinerary", "tourism", "abroad",
            "sightseeing",
        ],
        things: [
            "passport", "suitcase", "hostel", "ferry", "flight", "souvenir", "visa", "resort",
            "museum", "night train", "guidebook", "luggage", "island", "customs", "postcard",
            "timetable",
        ],
        acts: [
            "booked", "visited", "packed", "boarded", "toured", "missed", "reserved",
            "cancelled",
        ],
    },
    // Money
    TextTheme {
        topics: [
            "finance", "savings", "budget", "investing", "banking", "pension", "economy",
            "taxes",
        ],
        things: [
            "mortgage", "shares", "invoice", "interest", "dividend", "loan", "receipt",
            "index fund", "inflation", "payslip", "credit card", "deposit", "insurance",
            "ledger", "rent", "refund",
        ],
        acts: [
            "saved on", "paid", "invested in", "audited", "compared", "refinanced", "calculated",
            "spent",
        ],
    },
    // Cycling
    TextTheme {
        topics: [
            "cycling", "bicycle", "pedals", "commute", "gravel", "biketour", "velodrome",
            "roadbike",
        ],
        things: [
            "saddle", "derailleur", "helmet", "handlebar", "tyre", "inner tube", "chain",
            "headwind", "brake", "panniers", "spokes", "bike lane", "crankset", "peloton",
            "hairpin", "puncture",
        ],
        acts: [
            "pedalled", "overtook", "oiled", "pumped", "coasted on", "adjusted", "patched",
            "rode",
        ],
    },
    // Sewing
    TextTheme {
        topics: [
            "sewing", "fabric", "knitting", "tailoring", "crochet", "textiles", "quilting",
            "stitches",
        ],
        things: [
            "needle", "yarn", "zipper", "thread", "hem", "pincushion", "scarf", "bobbin",
            "sweater", "linen", "button", "seam", "thimble", "wool", "lining", "mittens",
        ],
        acts: [
            "stitched", "knitted", "hemmed", "unpicked", "sewed", "embroidered", "wove",
            "altered",
        ],
    },
    // Astronomy
    TextTheme {
        topics: [
            "astronomy", "cosmos", "telescope", "nightsky", "planets", "eclipse", "galaxy",
            "observatory",
        ],
        things: [
            "comet", "nebula", "orbit", "moonrise", "eyepiece", "meteor", "Saturn", "lens cap",
            "satellite", "crater", "tripod", "equinox", "Jupiter", "asteroid", "zenith",
            "aurora",
        ],
        acts: [
            "observed", "tracked", "sighted", "magnified", "focused on", "charted", "glimpsed",
            "identified",
        ],
    },
    // Parenting
    TextTheme {
        topics: [
            "parenting", "toddler", "baby", "family", "nursery", "motherhood", "fatherhood",
            "childcare",
        ],
        things: [
            "stroller", "lullaby", "crib", "pacifier", "diaper", "bedtime", "playground",
            "daycare", "tantrum", "bib", "teething", "high chair", "nap", "bottle", "crayons",
            "cradle",
        ],
        acts: [
            "soothed", "rocked", "swaddled", "tickled", "carried", "burped", "dressed",
            "comforted",
        ],
    },
    // Coding
    TextTheme {
        topics: [
            "programming", "software", "coding", "developers", "debugging", "opensource",
            "databases", "computing",
        ],
        things: [
            "compiler", "unit test", "patch set", "server", "regex", "loop", "backend", "cache",
            "stack trace", "function", "branch", "deadlock", "script", "terminal", "parser",
            "merge",
        ],
        acts: [
            "compiled", "refactored", "debugged", "deployed", "reverted", "committed",
            "profiled", "typed",
        ],
    },
];

/// People.
#[rustfmt::skip]
pub(super) const NAMES: [&str; 40] = [
    "Ada", "Ben", "Carla", "Dmitri", "Elena", "Farid", "Grace", "Hugo", "Ines", "Jonas", "Kemi",
    "Lucia", "Mara", "Nils", "Olga", "Pavel", "Quinn", "Rosa", "Sami", "Tess", "Uma", "Viktor",
    "Wanda", "Ximena", "Yusuf", "Zoe", "Akiko", "Bruno", "Chloe", "Diego", "Edith", "Felix",
    "Greta", "Hana", "Ivan", "Juno", "Kofi", "Leila", "Milo", "Nora",
];

/// Where it happened.
#[rustfmt::skip]
pub(super) const PLACES: [&str; 40] = [
    "at home", "in town", "at the lake", "next door", "by the river", "at work", "downtown",
    "on the roof", "at school", "upstairs", "in the park", "at the harbour", "in the yard",
    "on the pier", "at the market", "in the attic", "near the bridge", "at the corner",
    "by the sea", "in the suburbs", "at the station", "on the farm", "in the hall",
    "by the tower", "on the terrace", "at the cabin", "in the village", "on the balcony",
    "at the castle", "by the church", "in the cellar", "at the mall", "on the hill",
    "in the north", "at the border", "by the canal", "in the old town", "at the plaza",
    "on the coast", "at the office",
];

/// When it happened.
#[rustfmt::skip]
pub(super) const WHENS: [&str; 24] = [
    "today", "yesterday", "last night", "on Monday", "on Tuesday", "on Friday", "on Sunday",
    "this week", "last month", "in spring", "in autumn", "at noon", "at dawn", "at dusk",
    "after work", "before lunch", "all day", "in June", "in March", "in October", "this year",
    "once more", "at last", "by chance",
];

/// Last words.
#[rustfmt::skip]
pub(super) const CLOSERS: [&str; 24] = [
    "No regrets.", "Worth it.", "Never again.", "More soon.", "Such fun.", "Ask me why.",
    "Tips welcome.", "What a day.", "Quite a story.", "Tell a friend.", "Not bad.",
    "Slow start.", "So proud.", "Lesson learned.", "Give it a go.", "Too short.", "Simply nice.",
    "It took hours.", "Try it.", "Good times.", "Hard to beat.", "Let me know.", "Who knew.",
    "We laughed.",
];

/// First words of a title.
#[rustfmt::skip]
pub(super) const MOODS: [&str; 23] = [
    "my", "new", "daily", "easy", "little", "late", "first", "quick", "slow", "honest", "odd",
    "calm", "busy", "brave", "tiny", "lazy", "loud", "cosy", "rare", "wild", "bold", "old",
    "dear",
];
