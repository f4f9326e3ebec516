// kernel_status.js - greys a panel out and says so where its kernel is gone. Hosts differ: every host tells the models
// that their comm is dead (comm_live_update) when the kernel is restarted by hand; a kernel that died, was shut down or
// cannot be reached is known from the kernel connection of those managers that have one (JupyterLab, Notebook 7, Voila).
// It also keeps the arrow keys of sliders and menus, which Notebook 7 takes for its own shortcuts.
const GONE = ["dead", "restarting", "autorestarting", "terminating"];

export default {
  render({ model, el }) {
    hear(model);
    const manager = model.widget_manager, session = manager?.context?.sessionContext;
    const kernel = manager?.kernel ?? session?.session?.kernel;
    let own, root, gone = false, away = false, ended = false;
    const keep_keys = ({ target }) => { if (target.matches(".noUi-handle, select")) target.dataset.lmSuppressShortcuts = "true"; };
    el.classList.add("ex-gone");
    el.setAttribute("role", "alert");
    // the still picture that stands in the output for whoever has no live panel is not for this reader
    const hide = document.createElement("style"), still = `.ex-still-${model.get("key")}`;
    hide.textContent = `${still},.jp-OutputArea-child:has(${still}){display:none!important}`;

    function show() {
      if (ended) return;
      root = el.closest(".ex");
      if (!root) return void setTimeout(show, 50); // drawn before it is put into the page
      root.addEventListener("focusin", keep_keys);
      const dead = gone || away || own?.comm_live === false;
      root.classList.toggle("ex-dead", dead);
      for (const part of root.children) if (!part.contains(el)) part.inert = dead;
      const said = !dead ? "" : away && !gone ? model.get("unreachable") : model.get("gone");
      if (el.lastChild.textContent !== said) el.lastChild.textContent = said;
    }
    const on_status = (_, status) => { gone ||= GONE.includes(status); show(); };
    const on_connection = (_, status) => { away = status === "disconnected"; show(); };
    const on_dispose = () => { gone = true; show(); };
    const on_change = (_, { newValue }) => { gone ||= newValue !== kernel; show(); };

    el.append(hide, document.createElement("span"));
    kernel?.statusChanged?.connect(on_status);
    kernel?.connectionStatusChanged?.connect(on_connection);
    kernel?.disposed?.connect(on_dispose);
    session?.kernelChanged?.connect(on_change);
    model.on("comm_live_update", show);
    if (kernel) on_status(kernel, kernel.status);
    else show();
    manager?.get_model?.(model.get("key"))?.then((found) => { own = found; show(); }, () => {});
    return () => {
      ended = true;
      root?.removeEventListener("focusin", keep_keys);
      model.off("comm_live_update", show);
      kernel?.statusChanged?.disconnect(on_status);
      kernel?.connectionStatusChanged?.disconnect(on_connection);
      kernel?.disposed?.disconnect(on_dispose);
      session?.kernelChanged?.disconnect(on_change);
    };
  },
};
