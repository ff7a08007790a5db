"use strict";
{
  const at = (id) => document.getElementById(id);
  const paper = JSON.parse(at("paper").textContent);

  function tell(style, verdict, reason) {
    at("verdict").className = style;
    at("verdict").textContent = verdict;
    at("reason").textContent = reason;
  }

  function verifyNow() {
    try {
      const { total, shown } = sqlstate.verify(paper.proof, at("root").value.trim(), paper.question);
      const where = paper.question.kind === "present"
        ? `The entry is there, with this value: number ${shown[0].position + 1n} of ${total} in the store.`
        : `There is no entry with this key among the ${total} of the store.`;
      tell("good", "Proven", where);
    } catch (error) {
      const why = error instanceof sqlstate.ProofInvalid || error instanceof sqlstate.QuestionInvalid;
      tell("bad", "Not proven", why ? `Why: ${error.message}.` : `This page failed: ${error}`);
    }
  }

  if (paper.question !== null) {
    at("root").addEventListener("input", verifyNow);
    verifyNow();
  }
}
