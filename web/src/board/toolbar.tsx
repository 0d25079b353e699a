// Filters, which stand in the address, and the choice between board and list.
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { download, wordsOf } from "../api/client";
import { exportPath } from "../api/jobs";
import { loadModels, models } from "../handover/dialog";
import { Icon } from "../parts/icon";
import { toast } from "../parts/toast";
import { route, setParams } from "../router";
import { counts, filters } from "../store";
import { count, plural } from "../text/format";

const exporting = signal(false);

export function Toolbar({ asList }: { asList: boolean }) {
  const params = route.value.params;
  useEffect(() => void loadModels().catch(() => {}), []);
  const batches = counts.value?.batches ?? [];
  const batch = params.get("batch") ?? "";
  const model = params.get("model") ?? "";
  const label = params.get("label");
  const filtered = ["q", "batch", "model", "label"].some((name) => params.get(name));
  return (
    <div class="toolbar">
      <label class={batch ? "filter on" : "filter"}>
        <span class="hidden">Batch</span>
        <select value={batch} onChange={(event) => setParams({ batch: event.currentTarget.value || undefined })}>
          <option value="">All batches</option>
          {batch && !batches.some((each) => each.batch === batch) && <option>{batch}</option>}
          {batches.map((each) => (
            <option key={each.batch} value={each.batch}>
              {each.batch} ({each.total})
            </option>
          ))}
        </select>
      </label>
      <label class={model ? "filter on" : "filter"}>
        <span class="hidden">Model</span>
        <select value={model} onChange={(event) => setParams({ model: event.currentTarget.value || undefined })}>
          <option value="">All models</option>
          {model && !models.value.some((each) => each.id === model) && <option>{model}</option>}
          {models.value.map((each) => (
            <option key={each.id}>{each.id}</option>
          ))}
        </select>
      </label>
      {label && (
        <button class="filter on" onClick={() => setParams({ label: undefined })}>
          {label}
          <Icon name="close" size={12} />
          <span class="hidden">Remove this filter</span>
        </button>
      )}
      {filtered && (
        <button
          class="link"
          onClick={() => setParams({ q: undefined, batch: undefined, model: undefined, label: undefined })}
        >
          Clear
        </button>
      )}
      <span class="space" />
      <span class="totals soft tabular">
        {counts.value && `${plural(counts.value.total, "job")}, ${count(counts.value.states.in_progress)} live`}
      </span>
      <button
        class="quiet"
        disabled={exporting.value || !counts.value?.total}
        onClick={async () => {
          exporting.value = true;
          try {
            await download(exportPath("csv", filters.value), "jobs.csv");
          } catch (error) {
            toast(wordsOf(error), { bad: true });
          } finally {
            exporting.value = false;
          }
        }}
      >
        <Icon name="export" />
        Export
      </button>
      <div class="choice" role="group" aria-label="View">
        <button aria-pressed={!asList} onClick={() => setParams({ view: undefined })}>
          <Icon name="board" />
          Board
        </button>
        <button aria-pressed={asList} onClick={() => setParams({ view: "list" })}>
          <Icon name="list" />
          List
        </button>
      </div>
    </div>
  );
}
