// The drawing that the file of `ponder inspect` has too: src/ponder/lens/view.js.
declare module "*/lens/view.js" {
  export function drawLens(
    root: HTMLElement,
    data: unknown,
    options?: { branch?: (place: number, token: number) => void },
  ): Promise<{ keys: string[]; says: string; act: () => void }[]>;
}
