// Tells whoever looks at a page behind the login that their sign-in has ended, or that their role does not suffice.
"use strict";
(() => {
  const SIGN_IN = "x-ml-platform-sign-in", REFUSED = "x-ml-platform-refused";
  let bar = null, hasEnded = false;

  function show(text, withLink) {
    if (bar) bar.remove();
    bar = document.createElement("div");
    bar.setAttribute("role", "alert");
    bar.id = "ml-platform-login-notice";
    bar.style.cssText = "position:fixed;z-index:2147483647;left:50%;top:12px;transform:translateX(-50%);max-width:90vw;" +
      "background:#7a2e0e;color:#fff;font:14px/1.45 system-ui,sans-serif;padding:10px 14px;border-radius:8px;" +
      "box-shadow:0 4px 18px rgba(0,0,0,.35);display:flex;gap:12px;align-items:center";
    bar.append(text);
    if (withLink) {
      const link = document.createElement("a");
      link.href = "/-/login";
      link.target = "_blank";
      link.textContent = "Sign in";
      link.style.cssText = "color:#fff;font-weight:600;text-decoration:underline;white-space:nowrap";
      bar.append(link);
    }
    const close = document.createElement("button");
    close.textContent = "×";
    close.setAttribute("aria-label", "Close");
    close.style.cssText = "background:none;border:0;color:#fff;font-size:18px;cursor:pointer";
    close.onclick = () => bar.remove();
    bar.append(close);
    document.body.append(bar);
  }

  function ended() {
    if (hasEnded && bar && bar.isConnected) return;
    hasEnded = true;
    show("Your sign-in has ended. What you just did was not carried out; this page keeps what you entered. " +
      "Sign in again in a new tab, come back here, and repeat it.", true);
  }

  function look(status, header) {
    if (status === 401 && header(SIGN_IN)) ended();
    else if (status === 403 && header(REFUSED)) show(header(REFUSED), false);
    else if (status < 400 && hasEnded) { hasEnded = false; if (bar) bar.remove(); }
  }

  const plainFetch = window.fetch;
  window.fetch = async (...given) => {
    const response = await plainFetch(...given);
    if (new URL(response.url || location.href, location.href).origin === location.origin) {
      look(response.status, (name) => response.headers.get(name));
    }
    return response;
  };
  const send = XMLHttpRequest.prototype.send;
  XMLHttpRequest.prototype.send = function (...given) {
    this.addEventListener("load", () => look(this.status, (name) => this.getResponseHeader(name)));
    return send.apply(this, given);
  };
  const PlainWebSocket = window.WebSocket;
  window.WebSocket = class extends PlainWebSocket {
    constructor(...given) {
      super(...given);
      this.addEventListener("close", (event) => { if (event.code === 4401) ended(); });
    }
  };
})();
