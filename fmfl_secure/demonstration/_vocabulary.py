"""The words of the demo's made-up notes: phrases and sentences, no person, place or date.

`{span}`, `{grade}` and `{side}` are filled in at random. Findings follow "with", background
phrases follow "a history of". `SHARED` holds what could belong to two departments: a note built
on it alone cannot be told apart, as some real ones cannot.

`demonstration.notes` is the only module that reads these words.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

SPANS = (
    "two days", "three days", "five days", "a week", "ten days", "two weeks", "three weeks",
    "a month", "six weeks", "two months", "three months", "half a year", "nearly a year",
)  # fmt: skip
GRADES = ("mild", "moderate", "marked", "intermittent", "worsening", "persistent", "occasional")
SIDES = ("left", "right")

PEOPLE = ("woman", "man", "patient", "adult", "shift worker", "office worker", "farm worker")
ARRIVALS = (
    "attends the clinic", "comes to the emergency department", "is seen on the ward",
    "is reviewed by telephone", "is referred by the family doctor", "returns for follow-up",
    "is admitted overnight", "is seen in the outpatient department", "walks in unannounced",
)  # fmt: skip
CONNECTIVES = (
    "On further questioning there is also", "The notes mention", "Since the last visit there is",
    "Examination and chart review point to", "The referral letter stresses", "We again find",
    "Of note is", "A relative describes",
)  # fmt: skip

FINDINGS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "cardiology": (
        "pressing chest pain that spreads to the {side} arm", "an irregularly irregular pulse",
        "palpitations for {span}", "swollen ankles by evening for {span}",
        "a new systolic murmur over the apex", "raised troponin on two samples",
        "ST depression in the lateral leads", "a reduced ejection fraction on echo",
        "breathlessness when lying flat for {span}", "{grade} calf pain that eases at rest",
        "blood pressure well above target for {span}", "runs of fast atrial rhythm on the monitor",
        "a pause of four seconds on the recording", "a narrowed {side} coronary branch",
        "{grade} mitral regurgitation", "a pericardial rub", "distended neck veins",
        "a stent placed {span} ago", "fluid gain of three kilograms over {span}",
        "a widened QRS complex", "fainting on standing while taking a new diuretic",
        "a thickened septum on ultrasound", "a pacemaker check that shows early battery wear",
        "tightness across the chest when climbing stairs",
    ),
    "neurology": (
        "{grade} one-sided throbbing headache with flashing lights", "sudden {side} arm weakness",
        "numb fingertips for {span}", "a {grade} resting tremor of the {side} hand",
        "two seizures within {span}", "word-finding difficulty for {span}",
        "double vision when looking to the {side}", "a drooping {side} side of the face",
        "an unsteady broad-based gait", "memory lapses noticed by the family for {span}",
        "brisk reflexes in the {side} leg", "burning feet at night for {span}",
        "white-matter spots on MRI", "a small infarct in the {side} hemisphere",
        "slowed finger tapping and a soft voice", "shooting pain along the {side} cheek",
        "an upgoing {side} plantar response", "absence-like staring spells",
        "{grade} fatigable lid weakness", "oligoclonal bands in spinal fluid",
        "spike-wave discharges on EEG", "restless legs for {span}",
        "loss of smell and small handwriting", "a foot drop on the {side}",
    ),
    "oncology": (
        "a hard painless lump in the {side} breast", "an enlarged node above the {side} clavicle",
        "adenocarcinoma on the biopsy report", "a rising tumour marker over {span}",
        "a second cycle of chemotherapy planned", "neutropenia ten days after infusion",
        "bone pain and uptake on the scan", "night sweats and painless nodes for {span}",
        "a changing pigmented mole on the {side} shoulder", "a spiculated {side} nodule on CT",
        "liver deposits that have shrunk on treatment", "hair loss after the third infusion",
        "a positive sentinel node", "clear margins after resection {span} ago",
        "radiotherapy to the {side} hip for pain", "hormone-receptor positive disease",
        "{grade} mucositis under treatment", "blasts in the peripheral film",
        "a staging scan without distant spread", "a tumour antigen that has doubled",
        "tingling hands from a platinum drug", "a mass found at screening",
        "a request for genetic testing after two affected sisters",
        "a paraprotein band and punched-out bone lesions",
    ),
    "gastroenterology": (
        "burning behind the breastbone after meals for {span}", "{grade} cramps below the navel",
        "loose stools six times a day for {span}", "black tarry stools",
        "yellowing of the eyes for {span}", "a flat villous pattern on duodenal biopsy",
        "bright blood on the paper for {span}", "raised lipase and pain through to the back",
        "stones in a thick-walled gallbladder", "an ulcer at the gastric angle",
        "a tense abdomen with shifting dullness", "patchy inflammation of the terminal ileum",
        "a positive breath test for Helicobacter", "bloating after bread for {span}",
        "varices seen at endoscopy", "food that sticks halfway down for {span}",
        "a raised calprotectin", "{grade} constipation alternating with urgency",
        "two polyps removed at colonoscopy", "pain under the {side} ribs after fatty food",
        "a nodular liver edge on ultrasound", "vomiting of coffee-ground fluid",
        "tender fullness in the {side} iliac fossa", "a fatty liver with raised enzymes",
    ),
    "respiratory": (
        "a wheeze that wakes the patient at night", "green sputum for {span}",
        "a {grade} dry cough for {span}", "crackles at the {side} base",
        "a peak flow at half of the usual", "oxygen saturation of 88 percent on air",
        "a {side} pleural effusion", "loud snoring with pauses and daytime sleepiness",
        "an obstructive pattern on spirometry", "a consolidated {side} lower lobe",
        "more reliever inhaler use for {span}", "finger clubbing and fine basal crackles",
        "honeycomb change on thin-slice CT", "a collapsed {side} lung after coughing",
        "a twenty-a-day smoking habit and breathlessness on the flat", "a hoarse barking cough",
        "carbon dioxide retention on the blood gas", "a filling defect in a pulmonary artery",
        "a cough after starting to keep pigeons", "dilated bronchi on imaging",
        "a cavity in the {side} upper lobe", "an exacerbation that needed steroids {span} ago",
        "{grade} hay fever that has moved to the chest", "a low transfer factor",
    ),
})  # fmt: skip

PLANS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "cardiology": (
        "An echocardiogram and a 24-hour tape are booked", "Anticoagulation is started",
        "The beta-blocker is increased", "Angiography is discussed and accepted",
        "Daily weights and a loop diuretic are advised", "Cardioversion is planned",
    ),
    "neurology": (
        "MRI of the brain and an EEG are requested", "A triptan is prescribed for attacks",
        "Levodopa is started at a low dose", "Nerve conduction studies are arranged",
        "The antiepileptic dose is raised", "Thrombolysis was considered and declined",
    ),
    "oncology": (
        "The case goes to the tumour board", "A core biopsy is arranged within the week",
        "The next infusion is postponed", "Growth factor support is added",
        "A staging CT is requested", "Palliative radiotherapy is offered",
    ),
    "gastroenterology": (
        "Gastroscopy is booked", "A proton pump inhibitor is started for eight weeks",
        "Colonoscopy with biopsies is arranged", "A gluten-free diet is explained",
        "Mesalazine is continued", "Paracentesis gives four litres",
    ),
    "respiratory": (
        "Inhaler technique is corrected", "Spirometry with reversibility is requested",
        "A course of prednisolone and a spacer are given", "A sleep study is arranged",
        "Pulmonary rehabilitation is offered", "A chest drain is placed",
    ),
})  # fmt: skip

BACKGROUND: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "cardiology": (
        "a bypass operation", "atrial fibrillation", "high blood pressure", "heart failure",
        "a heart attack", "valve replacement",
    ),
    "neurology": (
        "migraine", "epilepsy", "a minor stroke", "multiple sclerosis", "peripheral neuropathy",
        "early Parkinson disease",
    ),
    "oncology": (
        "treated breast cancer", "lymphoma in remission", "a resected melanoma",
        "bowel cancer", "kidney cancer on surveillance", "childhood leukaemia",
    ),
    "gastroenterology": (
        "reflux disease", "ulcerative colitis", "gallstones", "coeliac disease",
        "fatty liver", "an old duodenal ulcer",
    ),
    "respiratory": (
        "asthma", "emphysema", "pneumonia", "sleep apnoea", "bronchiectasis", "hay fever",
    ),
})  # fmt: skip

SHARED: Mapping[tuple[str, str], tuple[str, ...]] = MappingProxyType({
    ("cardiology", "respiratory"): (
        "{grade} breathlessness on exertion for {span}", "chest discomfort on deep breaths",
        "a sense of not getting enough air for {span}", "a shadow at the {side} heart border",
    ),
    ("cardiology", "neurology"): (
        "a brief collapse without warning", "{grade} dizziness for {span}",
        "one blackout within {span}",
    ),
    ("cardiology", "gastroenterology"): (
        "pain in the upper belly and lower chest", "a burning tightness after a large meal",
    ),
    ("neurology", "oncology"): (
        "a ring-enhancing lesion on the head scan", "new headaches and weight loss for {span}",
        "back pain with {grade} leg weakness",
    ),
    ("gastroenterology", "oncology"): (
        "weight loss and poor appetite for {span}", "iron-deficiency anaemia without a cause",
        "a lesion of unclear nature in the liver",
    ),
    ("oncology", "respiratory"): (
        "coughing of blood-streaked phlegm for {span}", "an unclear {side} lung shadow",
        "weight loss and a cough for {span}",
    ),
    ("gastroenterology", "neurology"): (
        "{grade} trouble swallowing for {span}", "repeated vomiting and giddiness",
    ),
    ("gastroenterology", "respiratory"): (
        "a cough that is worse after meals and at night", "hiccups and a sore throat for {span}",
    ),
})  # fmt: skip

# Sentences that say nothing about the department.
DISTRACTORS = (
    "Blood count, kidney function and electrolytes are within limits",
    "The patient sleeps poorly and worries about work",
    "Appetite is reduced", "No fever was recorded", "Allergies were checked and there are none",
    "The medication list was brought up to date", "A blood sample was sent to the laboratory",
    "The patient lives alone and manages the stairs", "Vaccinations are complete",
    "Symptoms are worse in the evening", "The patient feels tired for {span}",
    "Results will be discussed in {span}", "A letter to the family doctor was dictated",
    "Physiotherapy was offered", "The patient prefers to wait before further tests",
    "Imaging was normal apart from age-related change", "Alcohol intake is moderate",
    "The patient asks about travel insurance", "An interpreter was present",
    "Weight is stable", "Pain is rated four out of ten", "Review is planned in {span}",
    "The examination was otherwise unremarkable", "A second opinion was requested",
)  # fmt: skip
