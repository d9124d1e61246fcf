(function () {
  "use strict";
  var kind = document.getElementById("kind");
  if (kind) {
    kind.closest(".filter").hidden = false;
    kind.addEventListener("change", function () {
      document.querySelectorAll("#anomalies .card").forEach(function (card) {
        card.hidden = kind.value !== "" && card.dataset.kind !== kind.value;
      });
    });
  }
  var closed = [];
  window.addEventListener("beforeprint", function () {
    closed = Array.prototype.slice.call(document.querySelectorAll("details:not([open])"));
    closed.forEach(function (one) { one.open = true; });
  });
  window.addEventListener("afterprint", function () {
    closed.forEach(function (one) { one.open = false; });
  });
})();
