"""Questions of a data protection impact assessment that a run's record cannot answer."""

from __future__ import annotations

# By part of the assessment: (a) to (d) of Article 35(7) GDPR, and (e) what comes after.
QUESTIONS: dict[str, tuple[str, ...]] = {
    "a": (
        "What is the model for, who will use it, and on whom?",
        (
            "Which categories of data and of people are in the training files? Special "
            "categories (Article 9), criminal convictions (Article 10), children?"
        ),
        "Where do the data come from, and for which purpose were they collected?",
        (
            "What is the legal basis, and is this purpose compatible with the original one "
            "(Article 6(4))?"
        ),
        (
            "Who is controller, joint controller (Article 26) or processor (Article 28) of "
            "what: sites, coordinator, aggregator, decryptor, provisioner?"
        ),
        "Who receives the adapter, in which countries, and for how long is it kept and used?",
        "Are the declared populations right, and rounded?",
    ),
    "b": (
        (
            "Why is the purpose not reached with public, synthetic or fewer data, or with the "
            "base model as it is?"
        ),
        "Is every field and every record that is trained on needed?",
        (
            "Is the protected unit a person? If it is a record: why, and how many records has "
            "one person at most?"
        ),
        (
            "Is the epsilon granted the smallest with which the model is still useful? Who "
            "decided, and on what grounds?"
        ),
        (
            "How are people told (Articles 13 and 14), and how do they object? What is done "
            "for somebody who asks for erasure after training?"
        ),
        "How long are training files, run folders and backups kept?",
    ),
    "c": (
        (
            "What would it mean for a person if somebody learned that they are in these data? "
            "How likely and how severe is that here?"
        ),
        "What would it mean if a text, an image or a rare attribute of theirs were recovered?",
        (
            "Are there people whose data are at several sites, or in several of one site's "
            "data sets under different populations?"
        ),
        (
            "What harm can the model do in use: errors, unequal errors between groups, use "
            "for another purpose?"
        ),
        "Which of the limits listed above matter here, and how much?",
    ),
    "d": (
        (
            "Do different people run the server and the decryptor? Did each party draw its own "
            "keys; if somebody drew them, were the copies destroyed?"
        ),
        "Who read the fingerprint of all keys to whom, and is what each party signed kept?",
        "Who holds the officer's anchors, and where, outside of the sites' backups?",
        "Who may use the adapter, and how is that controlled and logged?",
        "Are swap, core dumps, disks and backups of the training machines under control?",
        (
            "Who checks installed versions and vulnerabilities, and who answers an incident "
            "(Articles 33 and 34)?"
        ),
        "Which risks remain after all measures, and who accepts them?",
    ),
    "e": (
        "What does the data-protection officer advise (Article 35(2)), and was it followed?",
        "Were the people concerned, or their representatives, asked (Article 35(9))? If not, why?",
        "Does a high risk remain, so that the authority has to be consulted first (Article 36)?",
        "When is this reviewed (Article 35(11)): after which date, grant, data set or change?",
    ),
}
