"""The words of the synthetic support desk: themes with their sentences, and what the slots in them are filled with.

Everything here was written for this project; no sentence comes from a real customer.
"""

from __future__ import annotations

from dataclasses import dataclass

INTENTS = ("access", "billing", "cancellation", "fault", "feature", "refund", "sales", "shipping")
"""The eight labels, in order of name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Theme:
    """One thing people write about. Its share of the traffic, and its right label, may differ before and after the change."""

    label: str
    label_after: str | None = None
    """Where it differs from `label`: the meaning of the request changed by policy."""
    before: float
    """Weight in the traffic before the change; weights are relative."""
    after: float
    sentences: tuple[str, ...]


THEMES = (
    Theme(
        label="access", before=10, after=7,
        sentences=(
            "I forgot my password for {product}", "the reset mail for my password never comes",
            "my account is locked after {few} wrong attempts", "I can't sign in to {product} since {day}",
            "two factor code is not accepted when I log in", "please unlock the login of {person}",
            "how do I change the email address of my login", "it says invalid username although I am sure it's right",
            "my colleague {person} has no permission to open {product}", "I lost the phone with my authenticator app",
            "need a new user for {person} in our account", "single sign on sends me back to the login page",
        ),
    ),
    Theme(
        label="billing", before=10, after=7,
        sentences=(
            "there is a charge of {amount} on my card that I do not know", "invoice {number} shows the wrong amount",
            "why was I billed twice in {month}", "please send me the invoice for {month}", "the VAT number on invoice {number} is wrong",
            "my card expired, where do I enter the new one", "payment of {amount} was declined although there is money on the account",
            "can we pay {product} by bank transfer", "I need a receipt for {amount} for my tax office",
            "the bill for {product} went up without notice", "when is the next payment due",
            "change our billing address to {city} please",
        ),
    ),
    Theme(
        label="billing", label_after="sales", before=12, after=17,
        sentences=(
            "I want to change my plan from {plan} to {plan}", "please move us to the {plan} plan", "how do I switch to the {plan} plan",
            "can I downgrade from {plan} at the end of {month}", "our plan should be {plan} from {month} on",
            "plan change to {plan} please", "we have {few} more people, put us on the {plan} plan",
            "switch my subscription from monthly to yearly {plan}", "is a change of plan possible in the middle of the month",
            "I picked the {plan} plan by mistake, set it to {plan}",
        ),
    ),
    Theme(
        label="cancellation", before=10, after=6,
        sentences=(
            "please cancel my subscription of {product}", "I want to end my contract by {month}", "close my account and delete my data",
            "how do I terminate {product}", "we do not need {product} any more, stop it at the end of {month}",
            "cancel the trial before it renews", "I don't want to be renewed in {month}", "notice of termination for contract {number}",
            "stop my membership now", "where is the button to quit {product}", "delete the workspace of our company for good",
            "we are leaving, please confirm the cancellation",
        ),
    ),
    Theme(
        label="fault", before=11, after=6,
        sentences=(
            "{product} crashes when I open it", "{product} shows error {number}", "the page stays blank since {day}",
            "sync does not work any more on my {device}", "{product} is very slow today",
            "the app freezes on my {device} after the update", "upload stops at {few} percent every time",
            "no sound from the {product} since {day}", "the {product} disconnects every {few} minutes", "is there an outage in {city}",
            "my {device} can't find the {product}", "notifications do not arrive on my {device}",
        ),
    ),
    Theme(
        label="feature", before=9, after=6,
        sentences=(
            "it would be great if {product} had a dark mode", "please add an export to Excel", "do you plan to support {device}",
            "I wish I could sort the list by date", "suggestion: let us tag contacts in {product}",
            "could you add {language} as a language", "an option to mute {product} at night would help",
            "feature request: shared calendars", "can you make the font bigger in the next version",
            "we would love an integration of {product} with our CRM", "why is there no keyboard shortcut for search",
            "idea for {product}: offline mode",
        ),
    ),
    Theme(
        label="refund", before=10, after=6,
        sentences=(
            "I want my money back for order {number}", "I returned the {product} on {day}, when do I get the refund",
            "please refund {amount}", "how do I send the {product} back", "the {product} is not what I expected, I want to return it",
            "refund for {month} please, I never used it", "where is the return label for order {number}",
            "you still owe me {amount} for the returned {product}", "I'd like to exchange the {product} for another one",
            "the {product} arrived broken, I want a refund", "can I give the {product} back after {few} weeks",
            "my refund of {amount} is missing",
        ),
    ),
    Theme(
        label="sales", before=10, after=6,
        sentences=(
            "what does {product} cost for {few} people", "can I have a quote for {few} licences", "do you offer a discount for schools",
            "we would like a demo of {product}", "is there a free trial of {product}", "I am interested in {product}, please call me",
            "which product fits a company of {few} people", "what is the difference between {product} and {product}",
            "do you have a reseller in {city}", "do you have a price list for {product}",
            "we are comparing you with another vendor, who can talk to us", "can someone from your team present {product} in {city}",
        ),
    ),
    Theme(
        label="shipping", before=10, after=6,
        sentences=(
            "where is my order {number}", "the parcel with the {product} has not arrived", "tracking says delivered but I have nothing",
            "when will the {product} be sent", "can you deliver to {city} instead", "the courier came when I was out",
            "order {number} is late since {day}", "do you ship to {city}", "I need the {product} by {day}, is express possible",
            "part of order {number} is missing in the box", "change the delivery address of order {number}",
            "how long does delivery to {city} take",
        ),
    ),
    # Honest doubt: nobody can tell these apart for sure, so that no version reaches 100 %.
    Theme(
        label="refund", before=1.2, after=0.8,
        sentences=("there is a problem with order {number}", "about my {product} from {day}", "order {number}, please help"),
    ),
    Theme(
        label="shipping", before=1.2, after=0.8,
        sentences=("there is a problem with order {number}", "about my {product} from {day}", "order {number}, please help"),
    ),
    Theme(
        label="fault", before=0.8, after=0.6,
        sentences=("something is wrong with {product}", "{product} question", "it does not work, please help"),
    ),
    Theme(
        label="access", before=0.8, after=0.6,
        sentences=("something is wrong with {product}", "{product} question", "it does not work, please help"),
    ),
    # New with the change: products nobody had before, and new words for old wishes.
    Theme(
        label="fault", before=0, after=9,
        sentences=(
            "{newproduct} writes empty invoices since {day}", "{newproduct} totals the payments twice on my {device}",
            "the receipts in {newproduct} do not load", "{newproduct} shows last month's bill instead of this one",
            "{newproduct} loses the VAT lines when I save", "card scanner of {newproduct} reads nothing",
            "bank feed in {newproduct} is stuck", "{newproduct} rounds every amount wrongly",
            "invoice template in {newproduct} comes out garbled",
        ),
    ),
    Theme(
        label="shipping", before=0, after=8,
        sentences=(
            "my licence key for {newproduct} is not in my inbox", "the activation code of order {number} never came",
            "no download link for {newproduct} yet", "I bought {newproduct} on {day} and got no code by mail",
            "the e-voucher for {person} has not come", "please resend the key of {newproduct}",
            "the code for the second seat of {newproduct} is missing", "when do I get the download of {newproduct}",
        ),
    ),
    Theme(
        label="cancellation", before=0, after=7,
        sentences=(
            "put {newproduct} to sleep until {month}", "snooze our seats from {month}",
            "hibernate {newproduct} please, we are closed till {month}", "pause the bill of {newproduct} for {few} months",
            "no payments in {month}, we take a winter break", "freeze our {newproduct} seats for the summer",
            "set us to dormant from {month}", "we use {newproduct} again in {month}, let it rest till then",
        ),
    ),
    Theme(
        label="access", before=0, after=7,
        sentences=(
            "the passkey of {newproduct} is tied to my old {device}", "{newproduct} keyring says unknown {device}",
            "my ring badge does not open {newproduct}", "pair {person}'s badge with {newproduct}",
            "{newproduct} wants a face scan and fails", "the magic link opens nothing on my {device}",
            "{newproduct} does not know my fingerprint any more", "enrol a second badge for {person} in {newproduct}",
        ),
    ),
    Theme(
        label="refund", before=0, after=6,
        sentences=(
            "where do I drop my old {device} for the trade-in", "the green box for my old {product} has not come",
            "buyback offer for my {product} please", "what do you give me for a used {product}",
            "swap-back of my {product}: the parcel is on its way to you since {day}",
            "I sent the {device} for trade-in on {day} and see no credit", "is my {product} worth anything in the buyback",
        ),
    ),
)  # fmt: skip

SLOTS: dict[str, tuple[str, ...]] = {
    "product": (
        "Harbor",
        "Skiff",
        "the Harbor app",
        "Beacon",
        "the Beacon speaker",
        "Mooring",
        "Tidemark",
        "the headset",
        "the router",
        "Skiff Pro",
    ),
    "newproduct": ("Ledgerly", "Kelpie", "Ledgerly Books", "the Kelpie app", "Kelpie One"),
    "plan": ("Basic", "Team", "Business", "Family", "Premium", "Starter"),
    "amount": ("12 euros", "49.90", "$30", "€120", "8.99", "240 dollars", "£65"),
    "number": ("48213", "A-1102", "77120", "2210", "R-9917", "500", "60344", "E17"),
    "month": ("January", "March", "April", "June", "August", "October", "next month", "this month"),
    "day": ("Monday", "yesterday", "last week", "Friday", "this morning", "Tuesday", "the weekend"),
    "few": ("three", "five", "12", "two", "20", "forty", "90"),
    "city": ("Lyon", "Bergen", "Porto", "Leeds", "Graz", "Austin", "Kyoto", "Gdansk"),
    "device": ("iPhone", "laptop", "tablet", "Android phone", "iPad", "Windows PC", "MacBook"),
    "person": ("Ana", "Mr Okafor", "Jonas", "Priya", "our intern", "Mrs Lindqvist", "Teo"),
    "language": ("Polish", "Portuguese", "Swedish", "Japanese", "Dutch"),
}

OPENINGS = ("hi, ", "hello, ", "good morning, ", "hey there, ", "dear team, ", "to whom it may concern: ", "quick question: ", "urgent! ")
CLOSINGS = (
    " thanks",
    ", thank you",
    ". best regards",
    " please",
    " asap",
    "!!",
    ". can you help?",
    ". any idea?",
    ". we are waiting since {day}",
)
