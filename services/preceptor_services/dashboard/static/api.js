// The service's public API, with the caller's key. The key lives in this tab's session storage and nowhere else.

const KEY = "preceptor-key";

/** The key that requests are sent with; empty for none. */
export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

/** An answer that says what was wrong. `status` is 0 if there was none. */
export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** The JSON that `path` answers; with a `body`, to a POST. Throws `Problem`. */
export async function call(path, body) {
  const headers = { Accept: "application/json" };
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const request = { method: body === undefined ? "GET" : "POST", headers, body: body && JSON.stringify(body) };
  let response;
  try {
    response = await fetch(path, { ...request, cache: "no-store", credentials: "omit" });
  } catch {
    throw new Problem(0, "the service does not answer");
  }
  const answer = await response.json().catch(() => null);
  if (!response.ok) throw new Problem(response.status, answer?.detail ?? `the service answered ${response.status}`);
  return answer;
}
